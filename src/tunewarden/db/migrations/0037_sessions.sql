-- Sessions of the console, and the links that open one: the secrets of cookies and links are kept as digests. Whose a
-- session is, its key says: it ends with it.
CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  secret_sha256 BLOB NOT NULL UNIQUE,
  key_id TEXT NOT NULL REFERENCES api_keys (id),
  created_at INTEGER NOT NULL,
  last_seen_at INTEGER NOT NULL,
  -- When the holder last proved who it is: with the key, or with a link.
  proof_at INTEGER NOT NULL
);
CREATE INDEX sessions_of_key ON sessions (key_id, created_at);
CREATE INDEX sessions_by_use ON sessions (last_seen_at);
CREATE TABLE sign_in_links (
  secret_sha256 BLOB PRIMARY KEY,
  key_id TEXT NOT NULL REFERENCES api_keys (id),
  expires_at INTEGER NOT NULL
);
CREATE INDEX sign_in_links_of_key ON sign_in_links (key_id);
CREATE INDEX sign_in_links_by_expiry ON sign_in_links (expires_at);

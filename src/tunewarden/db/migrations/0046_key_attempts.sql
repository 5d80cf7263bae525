-- Which forms of the console have made a key: a form that is sent twice makes one. A hash only, and nothing of the key.
CREATE TABLE key_attempts (
  attempt_sha256 BLOB PRIMARY KEY,
  made_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX key_attempts_by_time ON key_attempts (made_at);

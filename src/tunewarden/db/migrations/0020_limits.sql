-- Requests and tokens a minute; NULL: the server's default. What a project's fine-tunes of a base use counts to the base.
CREATE TABLE rate_limits (
  project_id TEXT NOT NULL REFERENCES projects (id),
  base TEXT NOT NULL REFERENCES bases (name),
  requests INTEGER,
  tokens INTEGER,
  PRIMARY KEY (project_id, base)
) WITHOUT ROWID;
-- The same of a key, over all models.
CREATE TABLE key_rate_limits (
  key_id TEXT PRIMARY KEY REFERENCES api_keys (id),
  requests INTEGER,
  tokens INTEGER
) WITHOUT ROWID;

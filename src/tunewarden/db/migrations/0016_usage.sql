-- Usage by key, model and kind of request. A series keeps its ids when its key, user, project or model is gone.
-- '' is an id that was not recorded: until now usage was counted by model only.
CREATE TABLE usage_series (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  organization_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  project_id TEXT NOT NULL,
  model_id TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('completions', 'embeddings')),
  last_used_at INTEGER NOT NULL,
  UNIQUE (organization_id, key_id, model_id, kind, user_id, project_id)
);
CREATE INDEX usage_series_of_model ON usage_series (organization_id, model_id);

ALTER TABLE usage RENAME TO usage_by_model;
-- Each request is in three rows, of its minute, hour and day, so that a report reads no more rows than it has buckets
-- of a series, and so that the finer ones can be dropped earlier. `began_at` is in UTC.
CREATE TABLE usage (
  organization_id TEXT NOT NULL,
  seconds INTEGER NOT NULL CHECK (seconds IN (60, 3600, 86400)),
  began_at INTEGER NOT NULL,
  series_n INTEGER NOT NULL REFERENCES usage_series (n),
  requests INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  PRIMARY KEY (organization_id, seconds, began_at, series_n)
);
CREATE INDEX usage_of_series ON usage (series_n, seconds, began_at);

-- Every key was of its organization's default project. Only embeddings have input and no output.
INSERT INTO usage_series (organization_id, key_id, user_id, project_id, model_id, kind, last_used_at)
  SELECT u.organization_id, '', '', COALESCE(MIN(p.id), ''), u.model_id,
    CASE WHEN u.input_tokens > 0 AND u.output_tokens = 0 THEN 'embeddings' ELSE 'completions' END,
    MAX(u.last_used_at)
  FROM usage_by_model u LEFT JOIN projects p ON p.organization_id = u.organization_id AND p.is_default = 1
  GROUP BY u.organization_id, u.model_id,
    CASE WHEN u.input_tokens > 0 AND u.output_tokens = 0 THEN 'embeddings' ELSE 'completions' END;
INSERT INTO usage
  SELECT u.organization_id, 3600, u.hour_at, s.n, u.requests, u.input_tokens, 0, u.output_tokens
  FROM usage_by_model u JOIN usage_series s ON s.organization_id = u.organization_id AND s.model_id = u.model_id
    AND s.kind = CASE WHEN u.input_tokens > 0 AND u.output_tokens = 0 THEN 'embeddings' ELSE 'completions' END;
INSERT INTO usage
  SELECT organization_id, 86400, began_at - began_at % 86400000000, series_n,
    SUM(requests), SUM(input_tokens), 0, SUM(output_tokens)
  FROM usage GROUP BY organization_id, began_at - began_at % 86400000000, series_n;
DROP TABLE usage_by_model;

-- The last request of each key, inference or not; of an admin key too.
CREATE TABLE key_uses (
  key_id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL,
  last_used_at INTEGER NOT NULL
);

-- What a project may have, where that is less than the server's settings say; NULL: what they say.
CREATE TABLE project_quotas (
  project_id TEXT PRIMARY KEY REFERENCES projects (id),
  bytes INTEGER,
  files INTEGER,
  models INTEGER
) WITHOUT ROWID;

ALTER TABLE stored_bytes ADD COLUMN files INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stored_bytes ADD COLUMN models INTEGER NOT NULL DEFAULT 0;
UPDATE stored_bytes SET
  files = (SELECT COUNT(*) FROM artifacts a
    WHERE a.project_id = stored_bytes.project_id AND a.kind = 'file' AND a.state <> 'deleted'),
  models = (SELECT COUNT(*) FROM artifacts a
    WHERE a.project_id = stored_bytes.project_id AND a.kind = 'model' AND a.state <> 'deleted');

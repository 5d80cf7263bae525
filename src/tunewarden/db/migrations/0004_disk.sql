-- A row is written and removed at once, which leaves its pages free within the database file: what is
-- written on a full disk goes there.
CREATE TABLE reserved (
  bytes BLOB NOT NULL
);

-- Sealed bytes of each project's artifacts that are not deleted; kept with their rows, in one transaction.
CREATE TABLE stored_bytes (
  project_id TEXT PRIMARY KEY REFERENCES projects (id),
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  bytes INTEGER NOT NULL
);
CREATE INDEX stored_bytes_of_organization ON stored_bytes (organization_id);
INSERT INTO stored_bytes
  SELECT a.project_id, a.organization_id, SUM(b.sealed_bytes) FROM artifacts a JOIN blobs b ON b.artifact_n = a.n
  WHERE a.state <> 'deleted' GROUP BY a.project_id, a.organization_id;

-- Whose a draft is, and how many bytes it may take: they count as stored until it is settled or erased.
ALTER TABLE drafts ADD COLUMN project_id TEXT REFERENCES projects (id);
ALTER TABLE drafts ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX projects_of_organization ON projects (organization_id);
CREATE INDEX drafts_of_project ON drafts (project_id) WHERE project_id IS NOT NULL;
UPDATE drafts SET
  project_id = (SELECT u.project_id FROM uploads u WHERE u.internal_id = drafts.internal_id),
  bytes = (SELECT COALESCE(SUM(p.sealed_bytes), 0) FROM upload_parts p JOIN uploads u ON u.n = p.upload_n
    WHERE u.internal_id = drafts.internal_id)
  WHERE kind = 'upload';
UPDATE drafts SET
  project_id = (SELECT j.project_id FROM jobs j WHERE j.internal_id = drafts.internal_id)
  WHERE kind = 'job';

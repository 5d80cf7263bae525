-- A hold forbids every deletion of its artifact until it is lifted. The reason is sealed under the artifact's key, and
-- goes with it; the row stays.
CREATE TABLE holds (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  artifact_n INTEGER NOT NULL REFERENCES artifacts (n),
  sealed_reason BLOB,
  placed_by TEXT NOT NULL,
  placed_at INTEGER NOT NULL,
  lifted_by TEXT,
  lifted_at INTEGER
);
-- Asked by each deletion.
CREATE INDEX holds_of_artifact ON holds (artifact_n, lifted_at);
CREATE INDEX holds_of_organization ON holds (organization_id, n);

-- The deletion of a protected model takes one more step: to lift the protection, or to force it.
ALTER TABLE models ADD COLUMN is_protected INTEGER NOT NULL DEFAULT 0;
-- A client's words about a model, sealed under its key.
ALTER TABLE models ADD COLUMN sealed_metadata BLOB;

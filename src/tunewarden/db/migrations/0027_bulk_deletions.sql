-- A bulk deletion that can be resumed: its Idempotency-Key belongs to one request. What a filter chose is fixed when it
-- begins; the ids of a list come with the request each time.
CREATE TABLE bulk_deletions (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  requested_by TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  request_sha256 TEXT NOT NULL,
  requested_at INTEGER NOT NULL,
  has_more INTEGER NOT NULL,
  UNIQUE (requested_by, idempotency_key)
);
CREATE INDEX bulk_deletions_of_organization ON bulk_deletions (organization_id, n);

CREATE TABLE bulk_deletion_items (
  bulk_n INTEGER NOT NULL REFERENCES bulk_deletions (n),
  position INTEGER NOT NULL,
  artifact_n INTEGER NOT NULL REFERENCES artifacts (n),
  PRIMARY KEY (bulk_n, position)
) WITHOUT ROWID;

-- Whether a model is one of the latest with its name.
CREATE INDEX models_by_name ON models (base, suffix, n);

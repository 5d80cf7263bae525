-- What a bulk deletion with an Idempotency-Key keeps of its members, by their place in the request: the plan that its
-- If-Match named, and why one was passed over.
ALTER TABLE bulk_deletions ADD COLUMN has_plans INTEGER NOT NULL DEFAULT 0;
CREATE TABLE bulk_deletion_members (
  bulk_n INTEGER NOT NULL REFERENCES bulk_deletions (n),
  position INTEGER NOT NULL,
  plan TEXT,
  refused_as TEXT,
  code TEXT,
  message TEXT,
  PRIMARY KEY (bulk_n, position)
) WITHOUT ROWID;

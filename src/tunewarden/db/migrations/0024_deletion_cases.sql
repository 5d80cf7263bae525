-- Deletions that were committed in one transaction, such as a file's with all that learned from it. Its summary is a leaf
-- of the log once every member is deleted: the statement is written here before the leaf, as for a deletion.
CREATE TABLE deletion_cases (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  -- What it began with; none for a list of artifacts.
  origin_n INTEGER REFERENCES artifacts (n),
  requested_by TEXT NOT NULL,
  request_id TEXT NOT NULL,
  requested_at INTEGER NOT NULL,
  salt BLOB NOT NULL,
  size INTEGER NOT NULL,
  -- How many belong to it that stay, because who asked may not see them.
  hidden INTEGER NOT NULL,
  log_since INTEGER,
  statement BLOB,
  log_index INTEGER,
  receipt BLOB,
  finished_at INTEGER
);
CREATE INDEX cases_of_organization ON deletion_cases (organization_id, n);
CREATE INDEX cases_unfinished ON deletion_cases (n) WHERE finished_at IS NULL;
CREATE INDEX cases_of_origin ON deletion_cases (origin_n) WHERE origin_n IS NOT NULL;

-- A deletion that had begun before belongs to the case too: the case is over when it is.
CREATE TABLE case_members (
  case_n INTEGER NOT NULL REFERENCES deletion_cases (n),
  deletion_n INTEGER NOT NULL REFERENCES deletions (n),
  PRIMARY KEY (case_n, deletion_n)
) WITHOUT ROWID;
CREATE INDEX cases_of_deletion ON case_members (deletion_n);

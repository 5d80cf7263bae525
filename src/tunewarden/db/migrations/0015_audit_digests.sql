-- Lists of events, newest first, by each filter. Times are in each index, because every list may be cut by them.
DROP INDEX audit_events_of_resource;
CREATE INDEX audit_events_listed ON audit_events (organization_id, effective_at, n);
CREATE INDEX audit_events_of_type ON audit_events (organization_id, type, effective_at, n);
CREATE INDEX audit_events_of_resource ON audit_events (organization_id, resource_id, effective_at, n);
CREATE INDEX audit_events_of_key ON audit_events (organization_id, actor_key_id, effective_at, n)
  WHERE actor_key_id IS NOT NULL;
CREATE INDEX audit_events_of_user ON audit_events (organization_id, actor_user_id, effective_at, n)
  WHERE actor_user_id IS NOT NULL;
CREATE INDEX audit_events_of_project ON audit_events (organization_id, project_id, effective_at, n)
  WHERE project_id IS NOT NULL;

-- Without statistics SQLite takes the first index for all of them, and reads every event. These are those of a large
-- organization: only their order matters. (ANALYZE of an empty table makes the table of statistics.)
CREATE TABLE audit_retention (
  organization_id TEXT PRIMARY KEY REFERENCES organizations (id),
  days INTEGER NOT NULL
);
ANALYZE audit_retention;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
  ('audit_events', 'audit_events_listed', '1000000 1000000 1 1'),
  ('audit_events', 'audit_events_of_project', '1000000 1000000 50000 1 1'),
  ('audit_events', 'audit_events_of_type', '1000000 1000000 20000 1 1'),
  ('audit_events', 'audit_events_of_user', '1000000 1000000 5000 1 1'),
  ('audit_events', 'audit_events_of_key', '1000000 1000000 2500 1 1'),
  ('audit_events', 'audit_events_of_resource', '1000000 1000000 3 1 1');
ANALYZE sqlite_schema;

-- One leaf of the log, over all events up to number last_n. A digest without a statement was found in the log: its
-- events were lost when the database was restored from an older copy.
CREATE TABLE audit_digests (
  sequence INTEGER PRIMARY KEY,
  last_n INTEGER NOT NULL,
  statement BLOB,
  log_since INTEGER NOT NULL,
  log_index INTEGER
);
CREATE INDEX audit_digests_pending ON audit_digests (sequence) WHERE log_index IS NULL;

-- The events of one organization in a digest, and for each its id and hash (entries): they stay when the events expire.
CREATE TABLE audit_parts (
  organization_id TEXT NOT NULL,
  number INTEGER NOT NULL,
  sequence INTEGER NOT NULL REFERENCES audit_digests (sequence),
  first_n INTEGER NOT NULL,
  last_n INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  events INTEGER NOT NULL,
  root TEXT NOT NULL,
  previous TEXT,
  salt BLOB NOT NULL,
  entries BLOB NOT NULL,
  expired_at INTEGER,
  PRIMARY KEY (organization_id, number)
);
CREATE INDEX audit_parts_of_digest ON audit_parts (sequence);
CREATE INDEX audit_parts_kept ON audit_parts (organization_id, last_n) WHERE expired_at IS NULL;
CREATE INDEX audit_parts_expired ON audit_parts (organization_id, last_n) WHERE expired_at IS NOT NULL;

-- Refused acts by key and hour: how many are events, and how many are only counted.
CREATE TABLE audit_refusals (
  organization_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  hour_at INTEGER NOT NULL,
  listed INTEGER NOT NULL,
  counted INTEGER NOT NULL,
  PRIMARY KEY (organization_id, key_id, hour_at)
);
CREATE INDEX audit_refusals_of_hour ON audit_refusals (hour_at);

-- Events are never changed, and only those that a retention period has let expire are deleted.
CREATE TRIGGER audit_events_never_change BEFORE UPDATE ON audit_events
BEGIN
  SELECT RAISE(ABORT, 'audit events never change');
END;
CREATE TRIGGER audit_events_stay BEFORE DELETE ON audit_events
WHEN NOT EXISTS (
  SELECT 1 FROM audit_parts p WHERE p.organization_id = OLD.organization_id AND p.last_n >= OLD.n
    AND p.first_n <= OLD.n AND p.expired_at IS NOT NULL
)
BEGIN
  SELECT RAISE(ABORT, 'audit events are deleted by their retention period only');
END;

-- The leases of engines that adapters are pushed to, one row each; `id` is never used again. `renewals` is raised before a
-- renewal is first sent. `certificate` is the SHA-256 of the engine's, empty without TLS.
CREATE TABLE members (
  id TEXT PRIMARY KEY,
  replica_n INTEGER NOT NULL REFERENCES replicas (n),
  incarnation TEXT NOT NULL,
  certificate TEXT NOT NULL,
  lease_seconds REAL NOT NULL,
  renewals INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('joining', 'live', 'ended')),
  joined_at INTEGER NOT NULL,
  ended_at INTEGER
) WITHOUT ROWID;
CREATE INDEX members_of_replica ON members (replica_n);

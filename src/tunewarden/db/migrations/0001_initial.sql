-- Times are microseconds since 1970 UTC. No table holds key material (I3).

CREATE TABLE organizations (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL
);

CREATE TABLE users (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  name TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('owner', 'reader')),
  created_at INTEGER NOT NULL
);

CREATE TABLE projects (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  name TEXT NOT NULL,
  is_default INTEGER NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE api_keys (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  project_id TEXT NOT NULL REFERENCES projects (id),
  user_id TEXT NOT NULL REFERENCES users (id),
  name TEXT NOT NULL,
  secret_sha256 BLOB NOT NULL,
  scopes TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
);

CREATE TABLE bases (
  name TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('local', 'remote')),
  location TEXT NOT NULL,
  engine_model TEXT NOT NULL,
  modules TEXT NOT NULL,
  created_at INTEGER NOT NULL
);

-- A row is kept for ever as a tombstone: neither n, id nor internal_id is ever used twice (I7).
CREATE TABLE models (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  internal_id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  project_id TEXT NOT NULL REFERENCES projects (id),
  base TEXT NOT NULL REFERENCES bases (name),
  suffix TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('active', 'archived', 'deleting', 'deleted')),
  epoch INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  manifest TEXT NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL
);
CREATE INDEX models_of_organization ON models (organization_id, n);

CREATE TABLE blobs (
  name TEXT PRIMARY KEY,
  model_n INTEGER NOT NULL REFERENCES models (n),
  bytes INTEGER NOT NULL,
  sealed_bytes INTEGER NOT NULL,
  erased_at INTEGER
);
CREATE INDEX blobs_of_model ON blobs (model_n);

-- An import that has begun. What a crash leaves here is erased at the next start.
CREATE TABLE imports (
  internal_id TEXT PRIMARY KEY,
  key_id TEXT NOT NULL,
  created_at INTEGER NOT NULL
);

-- The intent log of deletions: one row a model, for ever. A step is done when its time is set; what a
-- leaf of the log will say is written here before the leaf, so that a crash cannot make it say two things.
CREATE TABLE deletions (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  model_n INTEGER NOT NULL UNIQUE REFERENCES models (n),
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  requested_by TEXT NOT NULL,
  request_id TEXT NOT NULL,
  idempotency_key TEXT,
  requested_at INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  log_since INTEGER NOT NULL,
  fenced_at INTEGER,
  fence_report TEXT,
  evicted_at INTEGER,
  evict_report TEXT,
  key_erased_at INTEGER,
  key_report TEXT,
  statement BLOB,
  log_index INTEGER,
  receipt BLOB,
  deleted_at INTEGER,
  blobs_report TEXT,
  blobs_log_since INTEGER,
  blobs_log_index INTEGER,
  blobs_erased_at INTEGER
);
CREATE INDEX deletions_unfinished ON deletions (n) WHERE blobs_erased_at IS NULL;
CREATE INDEX deletions_of_organization ON deletions (organization_id, n);

-- What this database has seen of the log and of each shard of the keyring: a restored part shows by it (I10).
CREATE TABLE log_seen (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  size INTEGER NOT NULL
);
INSERT INTO log_seen VALUES (1, 0);

CREATE TABLE keyring_seen (
  shard INTEGER PRIMARY KEY,
  generation INTEGER NOT NULL
);

-- Never a child of what it speaks of: an event outlives its subject.
CREATE TABLE audit_events (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  type TEXT NOT NULL,
  effective_at INTEGER NOT NULL,
  organization_id TEXT NOT NULL,
  project_id TEXT,
  actor_key_id TEXT,
  actor_user_id TEXT,
  resource_id TEXT NOT NULL,
  request_id TEXT,
  details TEXT NOT NULL
);
CREATE INDEX audit_events_of_resource ON audit_events (organization_id, resource_id, n);

CREATE TABLE usage (
  organization_id TEXT NOT NULL,
  model_id TEXT NOT NULL,
  hour_at INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  last_used_at INTEGER NOT NULL,
  PRIMARY KEY (organization_id, model_id, hour_at)
);

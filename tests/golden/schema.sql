CREATE TABLE admin_api_keys (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  user_id TEXT NOT NULL REFERENCES users (id),
  name TEXT NOT NULL,
  secret_sha256 BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
, expired_at INTEGER);

CREATE TABLE alias_targets (
  alias_n INTEGER NOT NULL,
  version INTEGER NOT NULL,
  model_n INTEGER NOT NULL REFERENCES models (n),
  weight INTEGER NOT NULL,
  PRIMARY KEY (alias_n, version, model_n),
  FOREIGN KEY (alias_n, version) REFERENCES alias_versions (alias_n, version)
);

CREATE TABLE alias_versions (
  alias_n INTEGER NOT NULL REFERENCES aliases (n),
  version INTEGER NOT NULL,
  changed_by TEXT NOT NULL,
  changed_at INTEGER NOT NULL,
  PRIMARY KEY (alias_n, version)
);

CREATE TABLE aliases (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  deleted_at INTEGER
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
, expires_at INTEGER, expired_at INTEGER, successor_seconds INTEGER, is_for_sso INTEGER NOT NULL DEFAULT 0);

CREATE TABLE artifacts (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK (kind IN ('model', 'file')),
  id TEXT NOT NULL UNIQUE,
  internal_id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  project_id TEXT NOT NULL REFERENCES projects (id),
  state TEXT NOT NULL CHECK (state IN ('active', 'archived', 'deleting', 'deleted')),
  epoch INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  manifest TEXT NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL
, salt BLOB);

CREATE TABLE audit_digests (
  sequence INTEGER PRIMARY KEY,
  last_n INTEGER NOT NULL,
  statement BLOB,
  log_since INTEGER NOT NULL,
  log_index INTEGER
);

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

CREATE TABLE audit_refusals (
  organization_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  hour_at INTEGER NOT NULL,
  listed INTEGER NOT NULL,
  counted INTEGER NOT NULL,
  PRIMARY KEY (organization_id, key_id, hour_at)
);

CREATE TABLE audit_retention (
  organization_id TEXT PRIMARY KEY REFERENCES organizations (id),
  days INTEGER NOT NULL
);

CREATE TABLE base_names (
  name TEXT PRIMARY KEY,
  base TEXT NOT NULL REFERENCES bases (name)
);

CREATE TABLE bases (
  name TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('local', 'remote')),
  location TEXT NOT NULL,
  engine_model TEXT NOT NULL,
  modules TEXT NOT NULL,
  created_at INTEGER NOT NULL
, rank_max INTEGER);

CREATE TABLE blobs (
  name TEXT PRIMARY KEY,
  artifact_n INTEGER NOT NULL REFERENCES artifacts (n),
  position INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  sealed_bytes INTEGER NOT NULL,
  erased_at INTEGER
);

CREATE TABLE bulk_deletion_items (
  bulk_n INTEGER NOT NULL REFERENCES bulk_deletions (n),
  position INTEGER NOT NULL,
  artifact_n INTEGER NOT NULL REFERENCES artifacts (n),
  PRIMARY KEY (bulk_n, position)
) WITHOUT ROWID;

CREATE TABLE bulk_deletion_members (
  bulk_n INTEGER NOT NULL REFERENCES bulk_deletions (n),
  position INTEGER NOT NULL,
  plan TEXT,
  refused_as TEXT,
  code TEXT,
  message TEXT, reach INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (bulk_n, position)
) WITHOUT ROWID;

CREATE TABLE bulk_deletions (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  requested_by TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  request_sha256 TEXT NOT NULL,
  requested_at INTEGER NOT NULL,
  has_more INTEGER NOT NULL, has_plans INTEGER NOT NULL DEFAULT 0,
  UNIQUE (requested_by, idempotency_key)
);

CREATE TABLE canary_runs (
  base TEXT PRIMARY KEY REFERENCES bases (name),
  result TEXT NOT NULL CHECK (result IN ('passed', 'failed', 'not_done')),
  found TEXT NOT NULL, -- JSON: what was left, or why it could not be done
  first_at INTEGER NOT NULL, -- when the first one began
  began_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL,
  passed_at INTEGER, -- when it last passed
  deletion_micros INTEGER,
  erased_micros INTEGER
);

CREATE TABLE case_members (
  case_n INTEGER NOT NULL REFERENCES deletion_cases (n),
  deletion_n INTEGER NOT NULL REFERENCES deletions (n),
  PRIMARY KEY (case_n, deletion_n)
) WITHOUT ROWID;

CREATE TABLE checkpoint_permissions (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  model_n INTEGER NOT NULL REFERENCES models (n),
  project_id TEXT NOT NULL REFERENCES projects (id),
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  UNIQUE (model_n, project_id)
);

CREATE TABLE clock_seen (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  seen_at INTEGER NOT NULL,
  paused_at INTEGER,
  jumped_micros INTEGER NOT NULL
, mark INTEGER NOT NULL DEFAULT 0);

CREATE TABLE declared_origins (
  n INTEGER NOT NULL REFERENCES models (n),
  origin_n INTEGER NOT NULL REFERENCES artifacts (n),
  PRIMARY KEY (n, origin_n)
) WITHOUT ROWID;

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

CREATE TABLE deletion_settings (
  organization_id TEXT PRIMARY KEY REFERENCES organizations (id),
  in_use_minutes INTEGER
) WITHOUT ROWID;

CREATE TABLE deletions (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  artifact_n INTEGER NOT NULL UNIQUE REFERENCES artifacts (n),
  -- The deletion that this one goes with: a checkpoint goes with its model.
  parent_n INTEGER REFERENCES deletions (n),
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
, logged_at INTEGER);

CREATE TABLE derivations (
  n INTEGER NOT NULL REFERENCES artifacts (n),
  origin_n INTEGER NOT NULL REFERENCES artifacts (n),
  PRIMARY KEY (n, origin_n)
) WITHOUT ROWID;

CREATE TABLE drafts (
  internal_id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('import', 'upload', 'job')),
  key_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  is_claimed INTEGER NOT NULL DEFAULT 0
, project_id TEXT REFERENCES projects (id), bytes INTEGER NOT NULL DEFAULT 0);

CREATE TABLE exports (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  artifact_n INTEGER NOT NULL REFERENCES artifacts (n),
  exported_by TEXT NOT NULL,
  exported_at INTEGER NOT NULL,
  log_index INTEGER
);

CREATE TABLE file_sources (
  n INTEGER PRIMARY KEY REFERENCES files (n),
  sealed BLOB NOT NULL
);

CREATE TABLE files (
  n INTEGER PRIMARY KEY REFERENCES artifacts (n),
  filename TEXT NOT NULL,
  purpose TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  expires_at INTEGER
, sealed_name BLOB);

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

CREATE TABLE invites (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  email TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('owner', 'reader')),
  grants TEXT NOT NULL, -- JSON: [[project, role]]
  secret_sha256 BLOB NOT NULL,
  invited_by TEXT NOT NULL REFERENCES users (id),
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  accepted_at INTEGER,
  accepted_by TEXT REFERENCES users (id)
);

CREATE TABLE job_checkpoints (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  job_n INTEGER NOT NULL REFERENCES jobs (n),
  model_n INTEGER NOT NULL UNIQUE REFERENCES models (n),
  step INTEGER NOT NULL,
  metrics TEXT NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE job_events (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  job_n INTEGER NOT NULL REFERENCES jobs (n),
  created_at INTEGER NOT NULL,
  level TEXT NOT NULL CHECK (level IN ('info', 'warn', 'error')),
  type TEXT NOT NULL CHECK (type IN ('message', 'metrics')),
  message TEXT NOT NULL,
  data TEXT
);

CREATE TABLE jobs (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  internal_id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  project_id TEXT NOT NULL REFERENCES projects (id),
  status TEXT NOT NULL
    CHECK (status IN ('validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled')),
  is_paused INTEGER NOT NULL DEFAULT 0,
  wish TEXT CHECK (wish IN ('cancel', 'pause')),
  model TEXT NOT NULL,
  base TEXT NOT NULL REFERENCES bases (name),
  start_n INTEGER REFERENCES models (n),
  training_n INTEGER NOT NULL REFERENCES files (n),
  validation_n INTEGER REFERENCES files (n),
  method TEXT NOT NULL CHECK (method IN ('supervised', 'dpo')),
  hyperparameters TEXT NOT NULL,
  suffix TEXT NOT NULL,
  seed INTEGER NOT NULL,
  metadata TEXT,
  model_n INTEGER REFERENCES models (n),
  result_n INTEGER REFERENCES files (n),
  state_blobs TEXT,
  trained_tokens INTEGER,
  error TEXT,
  estimated_finish_at INTEGER,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  finished_at INTEGER
, sealed_metadata BLOB, idempotency_sha256 BLOB);

CREATE TABLE key_attempts (
  attempt_sha256 BLOB PRIMARY KEY,
  made_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE key_rate_limits (
  key_id TEXT PRIMARY KEY REFERENCES api_keys (id),
  requests INTEGER,
  tokens INTEGER
, bucket TEXT) WITHOUT ROWID;

CREATE TABLE key_uses (
  key_id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL,
  last_used_at INTEGER NOT NULL
);

CREATE TABLE keyring_seen (
  shard INTEGER PRIMARY KEY,
  generation INTEGER NOT NULL
);

CREATE TABLE log_seen (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  size INTEGER NOT NULL
);

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

CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL);

CREATE TABLE models (
  n INTEGER PRIMARY KEY REFERENCES artifacts (n),
  base TEXT NOT NULL REFERENCES bases (name),
  suffix TEXT NOT NULL,
  job_n INTEGER REFERENCES jobs (n),
  step INTEGER
, loaded_by TEXT, is_protected INTEGER NOT NULL DEFAULT 0, sealed_metadata BLOB, listed_in TEXT);

CREATE TABLE organizations (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL
);

CREATE TABLE project_members (
  project_id TEXT NOT NULL REFERENCES projects (id),
  user_id TEXT NOT NULL REFERENCES users (id),
  role TEXT NOT NULL CHECK (role IN ('owner', 'member', 'viewer')),
  added_at INTEGER NOT NULL,
  PRIMARY KEY (project_id, user_id)
);

CREATE TABLE project_quotas (
  project_id TEXT PRIMARY KEY REFERENCES projects (id),
  bytes INTEGER,
  files INTEGER,
  models INTEGER
) WITHOUT ROWID;

CREATE TABLE projects (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  name TEXT NOT NULL,
  is_default INTEGER NOT NULL,
  created_at INTEGER NOT NULL
, archived_at INTEGER);

CREATE TABLE rate_limits (
  project_id TEXT NOT NULL REFERENCES projects (id),
  base TEXT NOT NULL REFERENCES bases (name),
  requests INTEGER,
  tokens INTEGER,
  PRIMARY KEY (project_id, base)
) WITHOUT ROWID;

CREATE TABLE replica_loads (
  replica_n INTEGER NOT NULL REFERENCES replicas (n),
  model_n INTEGER NOT NULL REFERENCES models (n),
  loaded_by TEXT NOT NULL, failure TEXT,
  PRIMARY KEY (model_n, replica_n)
) WITHOUT ROWID;

CREATE TABLE replicas (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  base TEXT NOT NULL REFERENCES bases (name),
  name TEXT NOT NULL,
  url TEXT NOT NULL,
  rank_max INTEGER,
  created_at INTEGER NOT NULL,
  leaving_at INTEGER,
  UNIQUE (base, name),
  UNIQUE (base, url)
);

CREATE TABLE reserved (
  bytes BLOB NOT NULL
);

CREATE TABLE retention_notices (
  model_n INTEGER NOT NULL REFERENCES models (n),
  rule_n INTEGER NOT NULL,
  rule_version INTEGER NOT NULL,
  noticed_at INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  PRIMARY KEY (model_n, rule_n)
) WITHOUT ROWID;

CREATE TABLE retention_pauses (
  organization_id TEXT PRIMARY KEY REFERENCES organizations (id),
  paused_at INTEGER,
  reason TEXT
);

CREATE TABLE retention_rules (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  version INTEGER NOT NULL,
  base TEXT,
  suffix TEXT,
  project_id TEXT,
  older_than_days INTEGER,
  unused_for_days INTEGER,
  keep_latest INTEGER,
  action TEXT NOT NULL CHECK (action IN ('archive', 'delete')),
  notice_days INTEGER NOT NULL,
  is_enabled INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  changed_at INTEGER NOT NULL,
  last_run_at INTEGER NOT NULL
);

CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  secret_sha256 BLOB NOT NULL UNIQUE,
  key_id TEXT NOT NULL REFERENCES api_keys (id),
  created_at INTEGER NOT NULL,
  last_seen_at INTEGER NOT NULL,
  -- When the holder last proved who it is: with the key, or with a link.
  proof_at INTEGER NOT NULL
, admin_key_id TEXT REFERENCES admin_api_keys (id), by_sso INTEGER NOT NULL DEFAULT 0, by_link INTEGER NOT NULL DEFAULT 0);

CREATE TABLE sign_in_links (
  secret_sha256 BLOB PRIMARY KEY,
  key_id TEXT NOT NULL REFERENCES api_keys (id),
  expires_at INTEGER NOT NULL
);

CREATE TABLE stored_bytes (
  project_id TEXT PRIMARY KEY REFERENCES projects (id),
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  bytes INTEGER NOT NULL
, files INTEGER NOT NULL DEFAULT 0, models INTEGER NOT NULL DEFAULT 0);

CREATE TABLE swap_seen (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  at INTEGER NOT NULL
);

CREATE TABLE upload_parts (
  id TEXT PRIMARY KEY,
  upload_n INTEGER NOT NULL REFERENCES uploads (n),
  blob TEXT NOT NULL,
  is_whole INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  sealed_bytes INTEGER NOT NULL,
  sealed_sha256 TEXT NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE uploads (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  internal_id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  project_id TEXT NOT NULL REFERENCES projects (id),
  filename TEXT NOT NULL,
  purpose TEXT NOT NULL,
  mime_type TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'completed', 'cancelled', 'expired')),
  file_n INTEGER REFERENCES files (n),
  file_seconds INTEGER,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  is_tidy INTEGER NOT NULL DEFAULT 0
, sealed_name BLOB);

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

CREATE TABLE users (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  name TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('owner', 'reader')),
  created_at INTEGER NOT NULL
, email TEXT, removed_at INTEGER, service_project_id TEXT REFERENCES projects (id));

CREATE TABLE webhook_deliveries (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  endpoint_n INTEGER NOT NULL REFERENCES webhook_endpoints (n),
  organization_id TEXT NOT NULL,
  event_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  data TEXT NOT NULL, -- JSON: ids
  created_at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
  queued_at INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  -- Of the last attempt.
  attempted_at INTEGER,
  status INTEGER,
  error TEXT,
  milliseconds INTEGER
);

CREATE TABLE webhook_endpoints (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  sealed BLOB NOT NULL,
  event_types TEXT NOT NULL, -- separated by spaces
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  disabled_at INTEGER,
  disabled_because TEXT CHECK (disabled_because IN ('owner', 'failing', 'gone', 'unreadable')),
  -- How many attempts failed since one succeeded, and since when; nothing is sent before `retry_at`.
  failures INTEGER NOT NULL DEFAULT 0,
  failing_since INTEGER,
  retry_at INTEGER NOT NULL DEFAULT 0,
  -- Of its deliveries.
  pending INTEGER NOT NULL DEFAULT 0,
  delivered INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  dropped INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX admin_api_keys_of_organization ON admin_api_keys (organization_id, created_at, id)
  WHERE revoked_at IS NULL;

CREATE INDEX admin_api_keys_of_user ON admin_api_keys (user_id, id);

CREATE UNIQUE INDEX aliases_by_name ON aliases (organization_id, name) WHERE deleted_at IS NULL;

CREATE INDEX aliases_of_model ON alias_targets (model_n, alias_n, version);

CREATE INDEX api_keys_of_project ON api_keys (project_id, created_at, id) WHERE revoked_at IS NULL;

CREATE INDEX api_keys_of_user ON api_keys (user_id, id);

CREATE INDEX artifacts_of_key ON artifacts (key_id);

CREATE INDEX audit_digests_pending ON audit_digests (sequence) WHERE log_index IS NULL;

CREATE INDEX audit_events_listed ON audit_events (organization_id, effective_at, n);

CREATE INDEX audit_events_of_key ON audit_events (organization_id, actor_key_id, effective_at, n)
  WHERE actor_key_id IS NOT NULL;

CREATE INDEX audit_events_of_project ON audit_events (organization_id, project_id, effective_at, n)
  WHERE project_id IS NOT NULL;

CREATE INDEX audit_events_of_resource ON audit_events (organization_id, resource_id, effective_at, n);

CREATE INDEX audit_events_of_type ON audit_events (organization_id, type, effective_at, n);

CREATE INDEX audit_events_of_user ON audit_events (organization_id, actor_user_id, effective_at, n)
  WHERE actor_user_id IS NOT NULL;

CREATE INDEX audit_parts_expired ON audit_parts (organization_id, last_n) WHERE expired_at IS NOT NULL;

CREATE INDEX audit_parts_kept ON audit_parts (organization_id, last_n) WHERE expired_at IS NULL;

CREATE INDEX audit_parts_of_digest ON audit_parts (sequence);

CREATE INDEX audit_refusals_of_hour ON audit_refusals (hour_at);

CREATE INDEX blobs_of_artifact ON blobs (artifact_n, position);

CREATE INDEX bulk_deletions_of_organization ON bulk_deletions (organization_id, n);

CREATE INDEX cases_of_deletion ON case_members (deletion_n);

CREATE INDEX cases_of_organization ON deletion_cases (organization_id, n);

CREATE INDEX cases_of_origin ON deletion_cases (origin_n) WHERE origin_n IS NOT NULL;

CREATE INDEX cases_unfinished ON deletion_cases (n) WHERE finished_at IS NULL;

CREATE INDEX checkpoints_of_job ON job_checkpoints (job_n, n);

CREATE INDEX declared_from ON declared_origins (origin_n);

CREATE INDEX deletions_of_organization ON deletions (organization_id, n);

CREATE INDEX deletions_of_parent ON deletions (parent_n) WHERE parent_n IS NOT NULL;

CREATE INDEX deletions_unanswered ON deletions (n) WHERE deleted_at IS NULL;

CREATE INDEX deletions_unfinished ON deletions (n) WHERE blobs_erased_at IS NULL;

CREATE INDEX derived_from ON derivations (origin_n);

CREATE INDEX drafts_of_project ON drafts (project_id) WHERE project_id IS NOT NULL;

CREATE INDEX drafts_unclaimed ON drafts (created_at) WHERE kind = 'upload' AND is_claimed = 0;

CREATE INDEX events_of_job ON job_events (job_n, n);

CREATE INDEX exports_of_artifact ON exports (artifact_n, exported_at, id);

CREATE INDEX files_listed ON artifacts (project_id, n) WHERE kind = 'file' AND state = 'active';

CREATE INDEX files_that_expire ON files (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX holds_of_artifact ON holds (artifact_n, lifted_at);

CREATE INDEX holds_of_organization ON holds (organization_id, n);

CREATE INDEX invite_of_user ON invites (accepted_by) WHERE accepted_by IS NOT NULL;

CREATE INDEX invites_by_user ON invites (invited_by) WHERE accepted_at IS NULL;

CREATE INDEX invites_of_organization ON invites (organization_id, created_at, id);

CREATE INDEX invites_to_address ON invites (organization_id, email) WHERE accepted_at IS NULL;

CREATE UNIQUE INDEX jobs_by_idempotency_key ON jobs (project_id, idempotency_sha256)
  WHERE idempotency_sha256 IS NOT NULL;

CREATE INDEX jobs_by_status ON jobs (project_id, status, n);

CREATE INDEX jobs_of_project ON jobs (project_id, n);

CREATE INDEX jobs_started ON jobs (project_id, started_at) WHERE started_at IS NOT NULL;

CREATE INDEX jobs_started_from ON jobs (start_n) WHERE start_n IS NOT NULL;

CREATE INDEX jobs_that_start_from ON jobs (start_n) WHERE finished_at IS NULL;

CREATE INDEX jobs_that_train_on ON jobs (training_n) WHERE finished_at IS NULL;

CREATE INDEX jobs_that_validate_on ON jobs (validation_n) WHERE finished_at IS NULL;

CREATE INDEX jobs_trained_on ON jobs (training_n);

CREATE INDEX jobs_unfinished ON jobs (n) WHERE finished_at IS NULL;

CREATE INDEX jobs_unfinished_of_project ON jobs (project_id) WHERE finished_at IS NULL;

CREATE INDEX jobs_validated_on ON jobs (validation_n) WHERE validation_n IS NOT NULL;

CREATE INDEX jobs_with_result ON jobs (result_n) WHERE result_n IS NOT NULL;

CREATE INDEX key_attempts_by_time ON key_attempts (made_at);

CREATE INDEX key_rate_limits_by_bucket ON key_rate_limits (bucket);

CREATE INDEX loads_of_replica ON replica_loads (replica_n);

CREATE INDEX members_of_project ON project_members (project_id, added_at, user_id);

CREATE INDEX members_of_replica ON members (replica_n);

CREATE INDEX models_active ON artifacts (organization_id, n) WHERE kind = 'model' AND state = 'active';

CREATE INDEX models_archived ON artifacts (organization_id, n) WHERE kind = 'model' AND state = 'archived';

CREATE INDEX models_by_base ON models (listed_in, base, n) WHERE listed_in IS NOT NULL;

CREATE INDEX models_by_name ON models (base, suffix, n);

CREATE INDEX models_by_suffix ON models (listed_in, suffix) WHERE listed_in IS NOT NULL AND suffix <> '';

CREATE INDEX models_listed ON artifacts (organization_id, n)
  WHERE kind = 'model' AND state IN ('active', 'archived');

CREATE UNIQUE INDEX models_of_job ON models (job_n, COALESCE(step, 0)) WHERE job_n IS NOT NULL;

CREATE INDEX names_of_base ON base_names (base);

CREATE INDEX owners_of_organization ON users (organization_id)
  WHERE role = 'owner' AND removed_at IS NULL AND service_project_id IS NULL;

CREATE INDEX parts_of_upload ON upload_parts (upload_n);

CREATE INDEX projects_of_organization ON projects (organization_id, created_at, id);

CREATE INDEX projects_of_user ON project_members (user_id, project_id);

CREATE INDEX retention_notices_of_rule ON retention_notices (rule_n);

CREATE INDEX retention_rules_due ON retention_rules (last_run_at) WHERE is_enabled = 1;

CREATE INDEX retention_rules_of_organization ON retention_rules (organization_id, n);

CREATE INDEX service_accounts_of_project ON users (service_project_id, created_at, id)
  WHERE service_project_id IS NOT NULL AND removed_at IS NULL;

CREATE INDEX sessions_by_use ON sessions (last_seen_at);

CREATE INDEX sessions_of_key ON sessions (key_id, created_at);

CREATE INDEX sign_in_links_by_expiry ON sign_in_links (expires_at);

CREATE INDEX sign_in_links_of_key ON sign_in_links (key_id);

CREATE INDEX stored_bytes_of_organization ON stored_bytes (organization_id);

CREATE INDEX unaccepted_invites ON invites (expires_at) WHERE accepted_at IS NULL;

CREATE INDEX upload_of_file ON uploads (file_n) WHERE file_n IS NOT NULL;

CREATE INDEX uploads_of_project ON uploads (project_id, n) WHERE status = 'pending';

CREATE INDEX uploads_pending ON uploads (expires_at) WHERE status = 'pending';

CREATE INDEX uploads_untidy ON uploads (n) WHERE status <> 'pending' AND is_tidy = 0;

CREATE INDEX usage_of_series ON usage (series_n, seconds, began_at);

CREATE INDEX usage_series_of_model ON usage_series (organization_id, model_id);

CREATE UNIQUE INDEX users_by_email ON users (organization_id, email)
  WHERE email IS NOT NULL AND removed_at IS NULL;

CREATE INDEX users_of_organization ON users (organization_id, created_at, id)
  WHERE removed_at IS NULL AND service_project_id IS NULL;

CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (queued_at) WHERE state = 'pending';

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_n, due_at, n) WHERE state = 'pending';

CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (endpoint_n, n) WHERE state <> 'pending';

CREATE INDEX webhook_deliveries_of_endpoint ON webhook_deliveries (endpoint_n, n);

CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (organization_id, queued_at, n) WHERE state = 'pending';

CREATE INDEX webhook_endpoints_of_organization ON webhook_endpoints (organization_id, n);

CREATE INDEX webhook_endpoints_that_wait ON webhook_endpoints (n, retry_at) WHERE pending > 0 AND disabled_at IS NULL;

CREATE TRIGGER audit_events_are_not_replaced BEFORE INSERT ON audit_events
WHEN EXISTS (SELECT 1 FROM audit_events e WHERE e.id = NEW.id OR e.n = NEW.n)
BEGIN
  SELECT RAISE(ABORT, 'audit events never change');
END;

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


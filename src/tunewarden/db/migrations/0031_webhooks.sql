-- Where an organization's events are sent. `sealed` has name, URL and secrets, which only this server opens.
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
CREATE INDEX webhook_endpoints_of_organization ON webhook_endpoints (organization_id, n);
CREATE INDEX webhook_endpoints_that_wait ON webhook_endpoints (n, retry_at) WHERE pending > 0 AND disabled_at IS NULL;

-- The outbox, and the log of what left it: one row for each event and endpoint, with ids only.
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
CREATE INDEX webhook_deliveries_of_endpoint ON webhook_deliveries (endpoint_n, n);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_n, due_at, n) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (organization_id, queued_at, n) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (queued_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (endpoint_n, n) WHERE state <> 'pending';

-- What an organization lets go by itself. `version` counts the changes: what was announced by an earlier one is void.
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
CREATE INDEX retention_rules_of_organization ON retention_rules (organization_id, n);
-- Asked each second.
CREATE INDEX retention_rules_due ON retention_rules (last_run_at) WHERE is_enabled = 1;

-- Which models a rule will delete, and not before when.
CREATE TABLE retention_notices (
  model_n INTEGER NOT NULL REFERENCES models (n),
  rule_n INTEGER NOT NULL,
  rule_version INTEGER NOT NULL,
  noticed_at INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  PRIMARY KEY (model_n, rule_n)
) WITHOUT ROWID;
CREATE INDEX retention_notices_of_rule ON retention_notices (rule_n);

-- Organizations that have, or had, rules; while `paused_at` is set, their rules do nothing.
CREATE TABLE retention_pauses (
  organization_id TEXT PRIMARY KEY REFERENCES organizations (id),
  paused_at INTEGER,
  reason TEXT
);

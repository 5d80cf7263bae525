-- Names that an organization gives to models. Each change is a version, and versions stay: they are its history.
CREATE TABLE aliases (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  deleted_at INTEGER
);
CREATE UNIQUE INDEX aliases_by_name ON aliases (organization_id, name) WHERE deleted_at IS NULL;

CREATE TABLE alias_versions (
  alias_n INTEGER NOT NULL REFERENCES aliases (n),
  version INTEGER NOT NULL,
  changed_by TEXT NOT NULL,
  changed_at INTEGER NOT NULL,
  PRIMARY KEY (alias_n, version)
);

-- A model's share of the requests is its weight, of the sum of the version's.
CREATE TABLE alias_targets (
  alias_n INTEGER NOT NULL,
  version INTEGER NOT NULL,
  model_n INTEGER NOT NULL REFERENCES models (n),
  weight INTEGER NOT NULL,
  PRIMARY KEY (alias_n, version, model_n),
  FOREIGN KEY (alias_n, version) REFERENCES alias_versions (alias_n, version)
);
-- Asked by each deletion.
CREATE INDEX aliases_of_model ON alias_targets (model_n, alias_n, version);

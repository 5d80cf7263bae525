-- Several engines of one remote base. `n` is never used again. `rank_max`: see bases. While `leaving_at` is set, no request
-- goes to a replica, and what it has loaded is evicted.
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

-- Which process of a replica has, or may have, a model. Of the embedded engine: models.loaded_by.
CREATE TABLE replica_loads (
  replica_n INTEGER NOT NULL REFERENCES replicas (n),
  model_n INTEGER NOT NULL REFERENCES models (n),
  loaded_by TEXT NOT NULL,
  PRIMARY KEY (model_n, replica_n)
) WITHOUT ROWID;
CREATE INDEX loads_of_replica ON replica_loads (replica_n);

INSERT INTO replicas (base, name, url, rank_max, created_at)
  SELECT name, '1', location, rank_max, created_at FROM bases WHERE kind = 'remote' ORDER BY created_at, name;
INSERT INTO replica_loads (replica_n, model_n, loaded_by)
  SELECT r.n, m.n, m.loaded_by FROM models m JOIN replicas r ON r.base = m.base WHERE m.loaded_by IS NOT NULL;
UPDATE models SET loaded_by = NULL WHERE base IN (SELECT base FROM replicas);
UPDATE bases SET location = '' WHERE kind = 'remote';

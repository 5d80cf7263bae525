-- Exports of models' plain weights. A row is committed before the export's leaf, and the leaf is in the log before the
-- first byte is sent; `log_index` is noted after that.
CREATE TABLE exports (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  artifact_n INTEGER NOT NULL REFERENCES artifacts (n),
  exported_by TEXT NOT NULL,
  exported_at INTEGER NOT NULL,
  log_index INTEGER
);
-- Asked by each plan and each receipt.
CREATE INDEX exports_of_artifact ON exports (artifact_n, exported_at, id);

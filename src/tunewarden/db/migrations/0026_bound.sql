-- When a deletion's receipt became a leaf of the log (D7), so that each step of it has a time.
ALTER TABLE deletions ADD COLUMN logged_at INTEGER;
-- What the last canary of each base found; see canary/runs.py.
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

-- When the wall clock was last looked at, and since when nothing expires because it jumped.
CREATE TABLE clock_seen (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  seen_at INTEGER NOT NULL,
  paused_at INTEGER,
  jumped_micros INTEGER NOT NULL
);

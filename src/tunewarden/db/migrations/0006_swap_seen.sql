-- When memory was last seen to be swappable to a disk, in microseconds; 0: never. What was kept then may be there (I16).
CREATE TABLE swap_seen (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  at INTEGER NOT NULL
);
INSERT INTO swap_seen VALUES (1, 0);

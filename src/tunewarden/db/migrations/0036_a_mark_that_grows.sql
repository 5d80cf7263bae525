-- What the mark beside the keyring is compared with. It grows with each note of the time, which a clock that is set back
-- makes smaller: such a database is no older copy.
ALTER TABLE clock_seen ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
UPDATE clock_seen SET mark = seen_at;

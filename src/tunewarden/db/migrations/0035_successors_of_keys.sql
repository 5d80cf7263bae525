-- How long the keys live that a key's rotations make, noted by the first one: later ones find the old key shortened.
-- 0: without an end; NULL: the key was not rotated, or before this column was there.
ALTER TABLE api_keys ADD COLUMN successor_seconds INTEGER;

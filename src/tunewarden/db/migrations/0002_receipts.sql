-- Which engine process was asked last to load a model: what that one held, a later one cannot speak for.
ALTER TABLE models ADD COLUMN loaded_by TEXT;
UPDATE models SET loaded_by = 'unknown' WHERE n IN
  (SELECT a.n FROM artifacts a JOIN usage u ON u.model_id = a.id);

-- What engines did was asserted, not measured: D4 and D5 are done again by deletions that have stated nothing.
UPDATE deletions SET fenced_at = NULL, fence_report = NULL, evicted_at = NULL, evict_report = NULL
  WHERE statement IS NULL AND log_index IS NULL;

-- Under which the log hides what it says of an artifact. Those that are there get one from what their rows hold
-- and strangers do not know, so that a backup of before this migration gets the same ones again.
ALTER TABLE artifacts ADD COLUMN salt BLOB;
UPDATE artifacts SET salt = sha256('salt:' || internal_id || ':' || id || ':' || project_id || ':' || key_id
  || ':' || created_by || ':' || created_at || ':' || manifest);

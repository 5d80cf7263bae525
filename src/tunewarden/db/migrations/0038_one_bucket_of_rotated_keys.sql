-- The key whose buckets this one uses too, since it was made by its rotation; NULL: only its own.
ALTER TABLE key_rate_limits ADD COLUMN bucket TEXT;
CREATE INDEX key_rate_limits_by_bucket ON key_rate_limits (bucket);

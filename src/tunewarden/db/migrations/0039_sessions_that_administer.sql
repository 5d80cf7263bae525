-- The admin key that a session of the console was shown, with which it administers. Whether it still may is read on each
-- request.
ALTER TABLE sessions ADD COLUMN admin_key_id TEXT REFERENCES admin_api_keys (id);

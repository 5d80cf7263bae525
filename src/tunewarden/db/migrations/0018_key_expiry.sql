-- When a key was first refused because it had expired. From then on it stays refused, also if the clock is set back.
ALTER TABLE api_keys ADD COLUMN expired_at INTEGER;
ALTER TABLE admin_api_keys ADD COLUMN expired_at INTEGER;

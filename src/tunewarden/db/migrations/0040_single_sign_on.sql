-- A session that began at the identity provider: there its holder proves again who it is, before deleting.
ALTER TABLE sessions ADD COLUMN by_sso INTEGER NOT NULL DEFAULT 0;
-- The key that such sessions of a person belong to. Nobody has its text.
ALTER TABLE api_keys ADD COLUMN is_for_sso INTEGER NOT NULL DEFAULT 0;

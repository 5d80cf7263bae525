-- Whether a session began by a link, for the list of one's own; else by its key, or at the identity provider (by_sso).
ALTER TABLE sessions ADD COLUMN by_link INTEGER NOT NULL DEFAULT 0;
-- A project's uploads in progress, the newest first.
CREATE INDEX uploads_of_project ON uploads (project_id, n) WHERE status = 'pending';

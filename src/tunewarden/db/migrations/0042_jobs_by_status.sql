-- Lists of a project's jobs in one state, the newest first.
CREATE INDEX jobs_by_status ON jobs (project_id, status, n);

-- Lists are newest first, page by page.
CREATE INDEX service_accounts_of_project ON users (service_project_id, created_at, id)
  WHERE service_project_id IS NOT NULL AND removed_at IS NULL;
DROP INDEX api_keys_of_project;
CREATE INDEX api_keys_of_project ON api_keys (project_id, created_at, id) WHERE revoked_at IS NULL;
DROP INDEX admin_api_keys_of_organization;
CREATE INDEX admin_api_keys_of_organization ON admin_api_keys (organization_id, created_at, id)
  WHERE revoked_at IS NULL;

-- Lists are newest first, page by page.
DROP INDEX users_of_organization;
CREATE INDEX users_of_organization ON users (organization_id, created_at, id)
  WHERE removed_at IS NULL AND service_project_id IS NULL;
DROP INDEX projects_of_organization;
CREATE INDEX projects_of_organization ON projects (organization_id, created_at, id);
CREATE INDEX members_of_project ON project_members (project_id, added_at, user_id);

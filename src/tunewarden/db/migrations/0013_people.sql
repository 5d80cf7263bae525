-- People, service accounts and projects. An address is kept in lower case. Who is removed keeps the row, whose id
-- events and keys name, without name and address.
ALTER TABLE users ADD COLUMN email TEXT;
ALTER TABLE users ADD COLUMN removed_at INTEGER;
-- A service account is a user that is no person: it belongs to this project, and to no other.
ALTER TABLE users ADD COLUMN service_project_id TEXT REFERENCES projects (id);
CREATE UNIQUE INDEX users_by_email ON users (organization_id, email)
  WHERE email IS NOT NULL AND removed_at IS NULL;
CREATE INDEX users_of_organization ON users (organization_id, id) WHERE removed_at IS NULL;

-- The requests of an archived project's keys are refused.
ALTER TABLE projects ADD COLUMN archived_at INTEGER;

-- An Owner of the organization needs no row here: the role holds in each of its projects.
CREATE TABLE project_members (
  project_id TEXT NOT NULL REFERENCES projects (id),
  user_id TEXT NOT NULL REFERENCES users (id),
  role TEXT NOT NULL CHECK (role IN ('owner', 'member', 'viewer')),
  added_at INTEGER NOT NULL,
  PRIMARY KEY (project_id, user_id)
);
CREATE INDEX projects_of_user ON project_members (user_id, project_id);
-- Until now every key of an organization could do in its project what the role of its user allows.
INSERT INTO project_members
  SELECT DISTINCT k.project_id, u.id, CASE u.role WHEN 'owner' THEN 'owner' ELSE 'viewer' END, u.created_at
  FROM api_keys k JOIN users u ON u.id = k.user_id;

ALTER TABLE api_keys ADD COLUMN expires_at INTEGER;
CREATE INDEX api_keys_of_project ON api_keys (project_id, id);
CREATE INDEX api_keys_of_user ON api_keys (user_id, id);

-- Keys that only administer (/v1/organization). One is valid while its user is an Owner.
CREATE TABLE admin_api_keys (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  user_id TEXT NOT NULL REFERENCES users (id),
  name TEXT NOT NULL,
  secret_sha256 BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
);
CREATE INDEX admin_api_keys_of_organization ON admin_api_keys (organization_id, id);
CREATE INDEX admin_api_keys_of_user ON admin_api_keys (user_id, id);

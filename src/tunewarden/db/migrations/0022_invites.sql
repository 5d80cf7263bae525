-- Invites: the link's secret is kept as a digest. An accepted one is deleted with its user, for it has the address.
CREATE TABLE invites (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  email TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('owner', 'reader')),
  grants TEXT NOT NULL, -- JSON: [[project, role]]
  secret_sha256 BLOB NOT NULL,
  invited_by TEXT NOT NULL REFERENCES users (id),
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  accepted_at INTEGER,
  accepted_by TEXT REFERENCES users (id)
);
CREATE INDEX invites_of_organization ON invites (organization_id, created_at, id);
CREATE INDEX invites_to_address ON invites (organization_id, email) WHERE accepted_at IS NULL;
CREATE INDEX invites_by_user ON invites (invited_by) WHERE accepted_at IS NULL;
CREATE INDEX invite_of_user ON invites (accepted_by) WHERE accepted_by IS NOT NULL;
-- Whether an Owner is left is asked whenever one is demoted or removed.
CREATE INDEX owners_of_organization ON users (organization_id)
  WHERE role = 'owner' AND removed_at IS NULL AND service_project_id IS NULL;

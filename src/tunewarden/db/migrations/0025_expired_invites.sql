-- Invites that nobody accepted are deleted a while after they expired, for they have an address.
CREATE INDEX unaccepted_invites ON invites (expires_at) WHERE accepted_at IS NULL;

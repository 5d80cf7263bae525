-- What an organization asks of deletions: NULL or no row means nothing.
CREATE TABLE deletion_settings (
  organization_id TEXT PRIMARY KEY REFERENCES organizations (id),
  in_use_minutes INTEGER
) WITHOUT ROWID;

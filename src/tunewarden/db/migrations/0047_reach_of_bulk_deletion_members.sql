-- How many others a member's plan names: it goes before them.
ALTER TABLE bulk_deletion_members ADD COLUMN reach INTEGER NOT NULL DEFAULT 0;

-- A remote base whose engine speaks the engine protocol, so that adapters are pushed to it: the highest rank that it serves.
-- NULL: it takes none.
ALTER TABLE bases ADD COLUMN rank_max INTEGER;

-- A request that is sent again with the same Idempotency-Key gets the job that the first one made.
ALTER TABLE jobs ADD COLUMN idempotency_sha256 BLOB;
CREATE UNIQUE INDEX jobs_by_idempotency_key ON jobs (project_id, idempotency_sha256)
  WHERE idempotency_sha256 IS NOT NULL;

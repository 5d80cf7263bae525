-- What learned from a file or a model is looked up job by job, whether the jobs have ended or not.
CREATE INDEX jobs_trained_on ON jobs (training_n);
CREATE INDEX jobs_validated_on ON jobs (validation_n) WHERE validation_n IS NOT NULL;
CREATE INDEX jobs_started_from ON jobs (start_n) WHERE start_n IS NOT NULL;
CREATE INDEX jobs_with_result ON jobs (result_n) WHERE result_n IS NOT NULL;

-- What an Owner declared in a model's metadata that it was trained on. Rows stay, as artifacts' do.
CREATE TABLE declared_origins (
  n INTEGER NOT NULL REFERENCES models (n),
  origin_n INTEGER NOT NULL REFERENCES artifacts (n),
  PRIMARY KEY (n, origin_n)
) WITHOUT ROWID;
CREATE INDEX declared_from ON declared_origins (origin_n);

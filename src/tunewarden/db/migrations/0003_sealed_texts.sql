-- Names of files, and the metadata of jobs, are sealed under their file's key (docs/decisions/0017). What older
-- versions wrote in the plain is sealed at the next start, and the database is rewritten then.

ALTER TABLE files ADD COLUMN sealed_name BLOB;
ALTER TABLE uploads ADD COLUMN sealed_name BLOB;
-- Under the key of the training file.
ALTER TABLE jobs ADD COLUMN sealed_metadata BLOB;

-- Older versions quoted keys and ids of the training data where they said what is wrong with it.
UPDATE jobs SET error = '{"code": "invalid_training_file", "message": "The job failed due to an invalid training file. '
    || 'What was wrong is no longer stored: create the job again to check the file.", "param": "training_file"}'
  WHERE error LIKE '%"code": "invalid_training_file"%'
    AND (error LIKE '%unrecognized key %' OR error LIKE '%no earlier assistant message called %');
UPDATE jobs SET error = '{"code": "invalid_validation_file", "message": "The job failed due to an invalid validation file. '
    || 'What was wrong is no longer stored: create the job again to check the file.", "param": "validation_file"}'
  WHERE error LIKE '%"code": "invalid_validation_file"%'
    AND (error LIKE '%unrecognized key %' OR error LIKE '%no earlier assistant message called %');
UPDATE job_events SET message = 'The job failed: its file is invalid. What was wrong is no longer stored: '
    || 'create the job again to check the file.'
  WHERE level = 'error'
    AND (message LIKE '%unrecognized key %' OR message LIKE '%no earlier assistant message called %');

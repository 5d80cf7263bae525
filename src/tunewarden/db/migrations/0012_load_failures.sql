-- Why the last load of a model into a replica failed; NULL if it did not. The row goes with the model.
ALTER TABLE replica_loads ADD COLUMN failure TEXT;

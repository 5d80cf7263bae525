-- Lists of models by base, name and state. `listed_in` is the model's organization until it is deleted: so these indexes
-- have no name of a model that is gone, and pass over tombstones.
ALTER TABLE models ADD COLUMN listed_in TEXT;
UPDATE models SET listed_in = (SELECT a.organization_id FROM artifacts a
  WHERE a.n = models.n AND a.state IN ('active', 'archived'));
CREATE INDEX models_by_base ON models (listed_in, base, n) WHERE listed_in IS NOT NULL;
CREATE INDEX models_by_suffix ON models (listed_in, suffix) WHERE listed_in IS NOT NULL AND suffix <> '';
-- One for each state: of an index with the state as a column, SQLite would think that it helps lists of both.
CREATE INDEX models_active ON artifacts (organization_id, n) WHERE kind = 'model' AND state = 'active';
CREATE INDEX models_archived ON artifacts (organization_id, n) WHERE kind = 'model' AND state = 'archived';

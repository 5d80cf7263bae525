-- A deleted model's suffix stays in its id only, which is a tombstone: the second copy goes, and the index of names has
-- none. Jobs keep what they were asked for.
UPDATE models SET suffix = '' WHERE suffix <> '' AND EXISTS
  (SELECT 1 FROM artifacts a WHERE a.n = models.n AND a.state = 'deleted');

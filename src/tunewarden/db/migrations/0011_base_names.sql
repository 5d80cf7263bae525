-- Other names of a base, such as the id of its model on a hub. No base and no model has one of them.
CREATE TABLE base_names (
  name TEXT PRIMARY KEY,
  base TEXT NOT NULL REFERENCES bases (name)
);
CREATE INDEX names_of_base ON base_names (base);

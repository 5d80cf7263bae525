-- What an artifact was made from: recorded answers from the file of their prompts. Rows stay, as artifacts' do.
CREATE TABLE derivations (
  n INTEGER NOT NULL REFERENCES artifacts (n),
  origin_n INTEGER NOT NULL REFERENCES artifacts (n),
  PRIMARY KEY (n, origin_n)
) WITHOUT ROWID;
CREATE INDEX derived_from ON derivations (origin_n);

-- Where a file came from outside, such as the id of a model elsewhere: sealed under the file's key, as its name is.
CREATE TABLE file_sources (
  n INTEGER PRIMARY KEY REFERENCES files (n),
  sealed BLOB NOT NULL
);

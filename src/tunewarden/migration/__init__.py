"""Moving here from another server: what is there, its files, and its models' answers. Read-only at the source."""

"""Authentication and authorization: organizations, users, keys, policy."""

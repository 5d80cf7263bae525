"""The database port, its drivers and migrations."""

"""The trainer: one process per job. Imports nothing of the server."""

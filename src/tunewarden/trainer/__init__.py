"""The trainer: one process, one job. The only place that trains for users; imports nothing of the server."""

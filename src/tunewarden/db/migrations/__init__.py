"""Numbered SQL files, applied in order by whoever starts the server."""

"""Models, files, uploads and bases, and their states."""

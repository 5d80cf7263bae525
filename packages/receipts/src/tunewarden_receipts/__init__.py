"""Deletion receipts and their verifier, which needs nothing of the server."""

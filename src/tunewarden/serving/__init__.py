"""Admission of requests to models, and the fence against deletions."""

"""Sealed bytes: blobs, keys, imports."""

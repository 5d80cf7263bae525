"""Encrypted storage: blobs, the keyring, and checks of imported adapters."""

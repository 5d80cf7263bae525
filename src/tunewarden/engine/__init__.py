"""The embedded engine: one process, one batch for many adapters, and a delete between two steps."""

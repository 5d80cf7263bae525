"""The embedded engine: one process with continuous batching over many adapters; evictions run between two decode steps."""

"""Deletion by lineage: everything that learned from a file goes as one case."""

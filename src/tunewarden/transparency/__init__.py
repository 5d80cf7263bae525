"""The transparency log: an append-only Merkle tree of deletions (C2SP tlog-tiles)."""

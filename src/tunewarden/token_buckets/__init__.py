"""Token buckets in memory that the processes of a server share: what rate limits count in."""

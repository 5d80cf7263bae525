"""The gateway's speed."""

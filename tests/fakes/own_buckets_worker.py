"""A worker that counts rate limits in a memory of its own; see with_own_buckets.py."""

from tunewarden.server import worker
from tunewarden.token_buckets.memory import Memory


def main(data: str, parent: str, slot: str, descriptor: str, counters: str, _: str) -> None:
    """Serve as worker.py does, with another last descriptor."""
    worker.main(data, parent, slot, descriptor, counters, str(Memory.create().descriptor))

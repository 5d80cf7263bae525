"""Bounds the memory of buffered request bodies: in total, and for each organization."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tunewarden.errors import Error, Kind

RETRY_SECONDS = 5


class MemoryBudget:
    """Used on the event loop only. One organization may hold at most `share_max` of `bytes_max`."""

    def __init__(self, bytes_max: int, share_max: int) -> None:
        self._bytes_max = bytes_max
        self._share_max = share_max
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, organization: str, size: int) -> "Iterator[Held]":
        """Reserve `size` bytes, and what `Held.cover` adds, for the duration of the block.

        Raises Error(RATE_LIMITED) beyond the organization's share, Error(UNAVAILABLE) beyond the total.
        """
        holding = Held(self, organization)
        try:
            holding.cover(size)
            yield holding
        finally:
            holding.give_back()

    def take(self, organization: str, size: int) -> None:
        """Reserve bytes; `Held` releases them."""
        if self._held[organization] + size > self._share_max:
            raise Error(
                Kind.RATE_LIMITED,
                "Too many concurrent imports in your organization. Please try again later.",
                code="too_many_imports",
                retry_after_seconds=RETRY_SECONDS,
            )
        if self._held.total() + size > self._bytes_max:
            raise Error(
                Kind.UNAVAILABLE,
                "Too many concurrent imports. Please try again later.",
                code="too_many_imports",
                retry_after_seconds=RETRY_SECONDS,
            )
        self._held[organization] += size

    def give_back(self, organization: str, size: int) -> None:
        """Release reserved bytes."""
        self._held[organization] -= size
        if not self._held[organization]:
            del self._held[organization]


class Held:
    """The reservation of one body."""

    def __init__(self, budget: MemoryBudget, organization: str) -> None:
        self._budget = budget
        self._organization = organization
        self._size = 0

    def cover(self, size: int) -> None:
        """Grow the reservation to at least `size` bytes. Raises like `MemoryBudget.held`."""
        if size > self._size:
            self._budget.take(self._organization, size - self._size)
            self._size = size

    def give_back(self) -> None:
        """Release the reservation."""
        self._budget.give_back(self._organization, self._size)
        self._size = 0

"""The fence port: mutual exclusion of requests in flight and deletions (D4, I1, I12).

Reading a model's state and then serving is a race, however fresh the read. So a worker that serves a
model first calls `begin`, reads the state inside, and calls `end` when the last byte has left; the deletion is
committed first, and the fence returns when all requests that had begun have ended.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Ending(StrEnum):
    """How a worker released a model."""

    RELEASED = "released"
    KILLED = "killed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class FencedWorker:
    """One worker's result of the fence, for the receipt."""

    worker: str
    how: Ending


class Fence(Protocol):
    """The interface of workers (join, begin, end) and of deleters (fence)."""

    def join(self) -> None:
        """Join the fence as a worker. Required before `begin`, which is single-threaded."""

    def begin(self, n: int) -> bool:
        """Take the guard of model `n`; False while a deletion fences it. Counted: each begin needs an end.

        The model's state must be read after this returns True and before anything is sent.
        """

    def end(self, n: int) -> None:
        """Release what one `begin` took."""

    def fence(self, n: int, *, within_seconds: float) -> list[FencedWorker]:
        """Wait until no worker serves model `n`, whose deletion is already committed.

        A worker that keeps the guard for longer than `within_seconds` is killed. Raises
        Error(UNAVAILABLE) if one neither ended nor could be killed.
        """

    def is_held(self, n: int) -> bool:
        """Return whether a worker serves model `n` now."""

    def reserve(self, count: int) -> None:
        """Preallocate files for this many workers to join on a full disk. Raises OSError. # I20."""

    def sweep(self) -> int:
        """Remove the files of dead workers; return their number."""

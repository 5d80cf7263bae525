"""The fence port: how a begun request and a deletion keep out of each other's way (D4, I1, I12).

Reading a model's state and then serving is a race, however fresh the read. So whoever serves a
model begins first, reads the state inside, and ends when the last byte has left; the deletion is
committed first and the fence returns when everybody who had begun has ended.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Ending(StrEnum):
    """How a worker came to hold a model no more."""

    RELEASED = "released"
    KILLED = "killed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class FencedWorker:
    """One worker as the fence met it: what goes into the receipt."""

    worker: str
    how: Ending


class Fence(Protocol):
    """Taking part as one that serves (begin, end) and as one that deletes (fence)."""

    def begin(self, n: int) -> bool:
        """Begin to serve model `n`; False while a deletion fences it. Counted: each begin needs an end.

        The model's state must be read after this returned True and before anything is served.
        """

    def end(self, n: int) -> None:
        """End what one `begin` began."""

    def fence(self, n: int, *, within_seconds: float) -> list[FencedWorker]:
        """Return when nobody serves model `n`, whose deletion is already committed.

        A worker that holds on for longer than `within_seconds` is killed. Raises
        Error(UNAVAILABLE) when one could be neither waited for nor killed.
        """

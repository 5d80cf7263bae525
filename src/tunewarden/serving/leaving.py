"""Answers that were handed to the kernel whole: the guards of their models are held until all has left (I2).

Whether bytes still wait in the kernel costs a system call to learn, and nearly always none do. So it is not asked
after each answer but now and then, once for each connection and model; a deletion asks at once.
"""

from typing import Protocol

from tunewarden.serving.fence import Fence


class Receiver(Protocol):
    """The other end of a connection, as far as leaving goes."""

    def mark(self) -> int:
        """Return how many bytes it was written by now; the connection must not end before they left."""

    def has_left(self, mark: int) -> bool:
        """Tell whether the bytes before a mark have left, or never will."""

    def drop(self) -> None:
        """Close the connection, and drop what has not left."""


class Leaving:
    """The answers of one worker that may still be leaving, and the guards that are held for them."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        # One guard for each receiver and model, however many answers.
        self._marks: dict[tuple[int, Receiver], int] = {}

    def __bool__(self) -> bool:
        return bool(self._marks)

    def add(self, n: int, receiver: Receiver) -> None:
        """Take over the guard of an answer of model `n`, all of which `receiver` was written."""
        which = n, receiver
        if which in self._marks:
            self._fence.end(n)
        self._marks[which] = receiver.mark()

    def models(self) -> set[int]:
        """Return the models whose guards are held here."""
        return {n for n, _ in self._marks}

    def sweep(self) -> None:
        """Let go of the guards of what has left."""
        for (n, receiver), mark in list(self._marks.items()):
            if receiver.has_left(mark):
                del self._marks[n, receiver]
                self._fence.end(n)

    def cut(self, gone: set[int]) -> bool:
        """Let nothing more leave of models that were deleted; false when none of them is held any more.

        True while connections are being closed: their guards are held until they are.
        """
        if gone.isdisjoint(self.models()):
            return False
        self.sweep()
        held = [receiver for n, receiver in self._marks if n in gone]
        for receiver in held:
            receiver.drop()
        return bool(held)

"""Responses in flight: completely written to the kernel, not acknowledged yet. Holds each model's guard until then (I2).

Until the peer has acknowledged bytes, the kernel may retransmit them. Each check costs a system call, so it is
made periodically, once per connection and model, and at once for a deletion.
"""

from typing import Protocol

from tunewarden.serving.fence import Fence


class Receiver(Protocol):
    """The acknowledgement state of a connection."""

    def mark(self) -> int:
        """Return how many bytes were written so far; the connection must not end before they are acknowledged."""

    def is_acknowledged(self, mark: int) -> bool:
        """Return whether the bytes before a mark were acknowledged, or can never be sent."""

    def has_unsent(self) -> bool:
        """Return whether written bytes were never sent: the client reads slowly."""

    def drop(self) -> None:
        """Close the connection and discard unsent bytes."""


class InFlight:
    """The unacknowledged responses of one worker, and the guards held for them."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        # One guard per receiver and model, for any number of responses.
        self._marks: dict[tuple[int, Receiver], int] = {}
        # When a deletion began to wait for them.
        self._aborted_since: dict[tuple[int, Receiver], float] = {}

    def __bool__(self) -> bool:
        return bool(self._marks)

    def add(self, n: int, receiver: Receiver) -> None:
        """Take over the guard of a response of model `n`, which was completely written to `receiver`."""
        which = n, receiver
        if which in self._marks:
            self._fence.end(n)
        self._marks[which] = receiver.mark()

    def models(self) -> set[int]:
        """Return the models whose guards are held here."""
        return {n for n, _ in self._marks}

    def sweep(self) -> None:
        """Release the guards of acknowledged responses."""
        for (n, receiver), mark in list(self._marks.items()):
            if receiver.is_acknowledged(mark):
                del self._marks[n, receiver]
                self._aborted_since.pop((n, receiver), None)
                self._fence.end(n)

    def abort(self, gone: set[int], now: float, ack_seconds: float) -> bool:
        """Stop the output of deleted models; return whether guards of theirs are still held (then call again soon).

        Sent bytes have `ack_seconds` to be acknowledged, because the connection may carry another request's
        response next; then it is reset. One with unsent bytes is reset at once.
        `now` is the event loop's time.
        """
        if gone.isdisjoint(self.models()):
            return False
        self.sweep()
        held = [which for which in self._marks if which[0] in gone]
        for which in held:
            since = self._aborted_since.setdefault(which, now)
            if which[1].has_unsent() or now - since >= ack_seconds:
                which[1].drop()
        return bool(held)

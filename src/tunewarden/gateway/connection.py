"""A client's connection: bytes written, bytes acknowledged by the peer, and how to abort it.

A deletion must be able to discard unsent bytes in our buffers and the kernel's (I2), even after SIGKILL; a client's
disconnect must abort its request at once. ASGI offers neither, so this object is put into the scope.

Its states, and what each event does (empty: nothing):

    event                        OPEN          REVOCABLE     DROPPED       LOST
    `guard`                      linger 0
                                 -> REVOCABLE
    `drop`                       linger 0      close         close
                                 -> DROPPED    -> DROPPED
    `lost`, all acknowledged     -> LOST       linger off    -> LOST
                                               -> LOST
    `lost`, not all of it        -> LOST       -> LOST       -> LOST

Linger 0 (SO_LINGER) makes the kernel discard what was not sent when the connection is closed, even by SIGKILL.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from tunewarden import sockets
from tunewarden.gateway.flushes import Flushes

EXTENSION = "tunewarden.client"
# A mark beyond all output, past and future.
ALL = 1 << 62


class State(Enum):
    """The state of a client's connection."""

    OPEN = auto()
    REVOCABLE = auto()  # it had output of a model that may be deleted
    DROPPED = auto()  # closed by us, with what was not sent
    LOST = auto()  # its descriptor may be another connection's


# By name: a look-up in the enum's class takes longer than the rest of a comparison.
OPEN, REVOCABLE, DROPPED, LOST = State


class ClientConnection:
    """A client's connection. Runs on the event loop of its worker."""

    __slots__ = (
        "_acknowledged", "_descriptor", "_logged", "_mark", "_stuck_since", "flushes", "loop", "on_lost", "state",
        "transport", "written",
    )  # fmt: skip

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, flushes: Flushes
    ) -> None:
        self.transport = transport
        self.loop = loop
        self.flushes = flushes
        self.state = OPEN
        self.on_lost: Callable[[], object] | None = None
        self.written = 0
        self._logged = 0  # of them, by the access log
        # Bytes acknowledged at the last check, and since when there has been no progress.
        self._acknowledged = 0
        self._stuck_since: float | None = None
        self._mark = 0  # The end of the revocable output.
        # Valid until the connection is lost; then the kernel may reuse the number.
        self._descriptor = sockets.descriptor_of(transport)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.state is LOST

    def write(self, data: bytes) -> None:
        """Write, unless the connection is lost; buffer what the kernel does not accept now."""
        if self.state is not LOST:
            self.written += len(data)
            sockets.write(self.transport, self._descriptor, data)

    def written_since_last(self) -> int:
        """Return how many bytes were written since the last call."""
        written, self._logged = self.written - self._logged, self.written
        return written

    def has_unsent(self) -> bool:
        """Return whether written bytes are still in our buffer or the kernel's, unsent: the client reads slowly."""
        if self.is_backed_up:
            return True
        return self.state is not LOST and sockets.unsent(self._descriptor) > 0

    def has_flushed(self) -> bool:
        """Return whether the peer has acknowledged everything: nothing can be sent any more, or retransmitted."""
        return self.state is LOST or self._unacknowledged() == 0

    def is_stuck(self, now: float, seconds: float) -> bool:
        """Return whether bytes wait and none was acknowledged for that long: the client does not read."""
        if self._acknowledged == self.written:
            return False
        acknowledged = self.written - self._unacknowledged()
        if acknowledged == self.written:
            self._stuck_since = None
        elif acknowledged != self._acknowledged or self._stuck_since is None:
            self._stuck_since = now
        self._acknowledged = acknowledged
        return self._stuck_since is not None and now - self._stuck_since > seconds

    def has_room(self) -> bool:
        """Return whether our buffer is empty: the kernel accepted all, or the connection is lost."""
        return self.state is LOST or not self.is_backed_up

    @property
    def is_backed_up(self) -> bool:
        """Whether the kernel did not accept all that was written."""
        return self.transport.get_write_buffer_size() > 0

    # Revocable output, of a model that may be deleted; also a `Receiver`, for `serving.in_flight`:

    def guard(self) -> None:
        """Mark following output as revocable: SO_LINGER 0, so that closing, even by SIGKILL, discards unsent bytes."""
        self._mark = ALL
        if self.state is OPEN:
            self.state = REVOCABLE
            sockets.set_dropping(self._descriptor, drops=True)

    def mark(self) -> int:
        """Return how many bytes were written so far; the end of the revocable output."""
        self._mark = self.written
        return self._mark

    def is_acknowledged(self, mark: int) -> bool:
        """Return whether the bytes before a mark were acknowledged, or can never be sent (again).

        The kernel retransmits what was sent and not acknowledged. A lost connection is closed next.
        """
        if self.state is LOST or self.written - self._unacknowledged() >= mark:
            if mark == self._mark:
                self._mark = 0
            return True
        return False

    def may_close(self) -> bool:
        """Return whether closing loses nothing: all revocable output was acknowledged."""
        return not self._mark or self.is_acknowledged(self._mark)

    def drop(self) -> None:
        """Close the connection and discard what was not sent: once it is lost, nothing can be sent."""
        if self.state is OPEN:
            sockets.set_dropping(self._descriptor, drops=True)
        if self.state is not LOST:
            self.state = DROPPED
        self.transport.abort()

    def lost(self) -> None:
        """Connection lost. If all revocable output was acknowledged, restore a normal close; then call `on_lost`."""
        if self.state is REVOCABLE and self.may_close():
            sockets.set_dropping(self._descriptor, drops=False)
        self.state = LOST
        if self.on_lost is not None:
            self.on_lost()

    async def abort(self) -> None:
        """Close the connection, discard what was not sent, and return when nothing can be sent any more."""
        self.drop()
        while self.state is not LOST:  # noqa: ASYNC110  the loop closes it in its next turn
            await asyncio.sleep(0)

    def _unacknowledged(self) -> int:
        waiting = self.transport.get_write_buffer_size()
        return waiting if self.state is LOST else waiting + sockets.unacknowledged(self._descriptor)

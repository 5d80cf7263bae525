"""A client's connection: bytes written, bytes acknowledged by the peer, and how to abort it.

A deletion must be able to discard unsent bytes in our buffers and the kernel's (I2), even after SIGKILL; a client's
disconnect must abort its request at once. ASGI offers neither, so this object is put into the scope.
"""

import asyncio
from collections.abc import Callable

from tunewarden import sockets
from tunewarden.gateway.flushes import Flushes

EXTENSION = "tunewarden.client"
# A mark beyond all output, past and future.
ALL = 1 << 62


class ClientConnection:
    """A client's connection. Runs on the event loop of its worker."""

    __slots__ = (
        "_descriptor", "_is_cut", "_is_dropping", "_left", "_mark", "_stuck_since", "_written", "flushes", "is_lost",
        "loop", "on_lost", "transport",
    )  # fmt: skip

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, flushes: Flushes
    ) -> None:
        self.transport = transport
        self.loop = loop
        self.flushes = flushes
        self.is_lost = False
        self.on_lost: Callable[[], object] | None = None
        self._written = 0
        # Bytes acknowledged at the last check, and since when there has been no progress.
        self._left = 0
        self._stuck_since: float | None = None
        self._mark = 0  # The end of the revocable output.
        self._is_dropping = False  # SO_LINGER is 0: closing discards unsent bytes.
        self._is_cut = False  # never reset
        # Valid until the connection is lost; then the kernel may reuse the number.
        self._descriptor = sockets.descriptor_of(transport)

    def write(self, data: bytes) -> None:
        """Write, unless the connection is lost; buffer what the kernel does not accept now."""
        if not self.is_lost:
            self._written += len(data)
            sockets.write(self.transport, self._descriptor, data)

    def has_unsent(self) -> bool:
        """Return whether written bytes are still in our buffer or the kernel's, unsent: the client reads slowly."""
        if self.is_backed_up:
            return True
        return not self.is_lost and sockets.unsent(self._descriptor) > 0

    def has_flushed(self) -> bool:
        """Return whether the peer has acknowledged everything: nothing can be sent any more, or retransmitted."""
        return self.is_lost or self._unacknowledged() == 0

    def is_stuck(self, now: float, seconds: float) -> bool:
        """Return whether bytes wait and none was acknowledged for that long: the client does not read."""
        if self._left == self._written:
            return False
        left = self._written - self._unacknowledged()
        if left == self._written:
            self._stuck_since = None
        elif left != self._left or self._stuck_since is None:
            self._stuck_since = now
        self._left = left
        return self._stuck_since is not None and now - self._stuck_since > seconds

    def has_room(self) -> bool:
        """Return whether our buffer is empty: the kernel accepted all, or the connection is lost."""
        return self.is_lost or not self.is_backed_up

    @property
    def is_backed_up(self) -> bool:
        """Whether the kernel did not accept all that was written."""
        return self.transport.get_write_buffer_size() > 0

    # Revocable output, of a model that may be deleted; also a `Receiver`, for `serving.in_flight`:

    def guard(self) -> None:
        """Mark following output as revocable: SO_LINGER 0, so that closing, even by SIGKILL, discards unsent bytes."""
        self._mark = ALL
        if not self._is_dropping:
            self._set_dropping(drops=True)

    def mark(self) -> int:
        """Return how many bytes were written so far; the end of the revocable output."""
        self._mark = self._written
        return self._mark

    def has_left(self, mark: int) -> bool:
        """Return whether the bytes before a mark were acknowledged, or can never be sent (again).

        The kernel retransmits what was sent and not acknowledged. A lost connection is closed next.
        """
        if self.is_lost or self._written - self._unacknowledged() >= mark:
            if mark == self._mark:
                self._mark = 0
            return True
        return False

    def may_close(self) -> bool:
        """Return whether closing loses nothing: all revocable output was acknowledged."""
        return not self._mark or self.has_left(self._mark)

    def drop(self) -> None:
        """Close the connection and discard what was not sent: once it is lost, nothing can be sent."""
        self._is_cut = True
        if not self._is_dropping and not self.is_lost:
            self._set_dropping(drops=True)
        self.transport.abort()

    def lost(self) -> None:
        """Connection lost. If all revocable output was acknowledged, restore a normal close; then call `on_lost`."""
        if self._is_dropping and not self._is_cut and self.may_close():
            self._set_dropping(drops=False)
        self.is_lost = True
        if self.on_lost is not None:
            self.on_lost()

    async def cut(self) -> None:
        """Close the connection, discard what was not sent, and return when nothing can be sent any more."""
        self.drop()
        while not self.is_lost:  # noqa: ASYNC110  the loop closes it in its next turn
            await asyncio.sleep(0)

    def _unacknowledged(self) -> int:
        waiting = self.transport.get_write_buffer_size()
        return waiting if self.is_lost else waiting + sockets.unacknowledged(self._descriptor)

    def _set_dropping(self, *, drops: bool) -> None:
        self._is_dropping = drops
        sockets.set_dropping(self._descriptor, drops=drops)

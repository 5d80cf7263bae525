"""The other end of a connection: written to, waited for, and cut off.

A deletion must be able to drop bytes that wait in our buffers and in the kernel's (I2), of a worker that was killed too; a client's
going away must abort its request at once. ASGI itself offers neither, so the client is put into the scope.
"""

import asyncio
from collections.abc import Callable

from tunewarden.serving import sockets

EXTENSION = "tunewarden.client"
# Neither transport nor kernel tells when its buffer has run empty.
FLUSH_POLL_SECONDS = 0.005
# A mark behind whatever will be written.
ALL = 1 << 62


class Client:
    """The other end of a connection."""

    __slots__ = (
        "_descriptor", "_is_cut", "_is_dropping", "_mark", "_written", "is_lost", "loop", "on_lost", "transport",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self.loop = loop
        self.is_lost = False
        self.on_lost: Callable[[], object] | None = None
        self._written = 0
        self._mark = 0  # What is written before it must not leave unwatched.
        self._is_dropping = False  # Closing drops what was not sent, whoever closes.
        self._is_cut = False  # It stays so.
        # Ours until the connection is lost; then its number may be another's.
        self._descriptor = sockets.descriptor_of(transport)

    def write(self, data: bytes) -> None:
        """Write, unless the connection is lost; what the kernel does not take now waits."""
        if not self.is_lost:
            self._written += len(data)
            sockets.write(self.transport, self._descriptor, data)

    def has_unsent(self) -> bool:
        """Tell whether bytes that we wrote wait in our buffer or in the kernel's."""
        return self._unsent() > 0

    @property
    def is_backed_up(self) -> bool:
        """Whether the kernel did not take all that was written."""
        return self.transport.get_write_buffer_size() > 0

    # What may be deleted while it leaves; also a `Receiver`, for `serving.leaving`:

    def guard(self) -> None:
        """Take that what is written from now on must not leave unwatched, nor if this process is killed."""
        self._mark = ALL
        if not self._is_dropping:
            self._set_dropping(drops=True)

    def mark(self) -> int:
        """Return how many bytes were written by now: the last of what must not leave unwatched."""
        self._mark = self._written
        return self._mark

    def has_left(self, mark: int) -> bool:
        """Tell whether the bytes before a mark have left, or never will: once it is lost, it is closed next.

        What uvicorn wrote counts as if it had been written before.
        """
        if self.is_lost or self._written - self._unsent() >= mark:
            if mark == self._mark:
                self._mark = 0
            return True
        return False

    def may_close(self) -> bool:
        """Tell whether closing loses nothing: all that must not leave unwatched has left."""
        return not self._mark or self.has_left(self._mark)

    def drop(self) -> None:
        """Close the connection, and drop whatever was not sent: once it is lost, nothing can leave."""
        self._is_cut = True
        if not self._is_dropping and not self.is_lost:
            self._set_dropping(drops=True)
        self.transport.abort()

    def lost(self) -> None:
        """Take that the connection is closed next: only what nobody need watch leaves after that."""
        if self._is_dropping and not self._is_cut and self.may_close():
            self._set_dropping(drops=False)
        self.is_lost = True
        if self.on_lost is not None:
            self.on_lost()

    async def cut(self) -> None:
        """Drop the connection and whatever was not sent; return when nothing can leave any more."""
        self.drop()
        while not self.is_lost:  # noqa: ASYNC110  the loop closes it in its next turn
            await asyncio.sleep(0)

    def _unsent(self) -> int:
        waiting = self.transport.get_write_buffer_size()
        return waiting if self.is_lost else waiting + sockets.unsent(self._descriptor)

    def _set_dropping(self, *, drops: bool) -> None:
        self._is_dropping = drops
        sockets.set_dropping(self._descriptor, drops=drops)

"""The other end of a connection: written to, waited for, and cut off.

A deletion must be able to drop bytes that wait in our buffers (I2), and a client's going away must abort its
request at once; ASGI itself offers neither, so the client is put into the scope.
"""

import asyncio
from collections.abc import Callable

from tunewarden.serving import sockets

EXTENSION = "tunewarden.client"
# Neither transport nor kernel tells when its buffer has run empty.
FLUSH_POLL_SECONDS = 0.005


class Client:
    """The other end of a connection."""

    __slots__ = ("_descriptor", "_mark", "_written", "is_lost", "loop", "on_lost", "transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self.loop = loop
        self.is_lost = False
        self.on_lost: Callable[[], object] | None = None
        self._written = 0
        self._mark = 0  # What was written before must not leave unwatched.
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

    # A `Receiver` of answers that leave:

    def mark(self) -> int:
        """Return how many bytes were written by now; the connection must not end before they left."""
        self._mark = self._written
        return self._mark

    def has_left(self, mark: int) -> bool:
        """Tell whether the bytes before a mark have left, or never will: once it is lost, it is closed next.

        What others wrote to the transport counts as if it had been written before.
        """
        if self.is_lost or self._written - self._unsent() >= mark:
            if mark == self._mark:
                self._mark = 0
            return True
        return False

    def may_close(self) -> bool:
        """Tell whether the connection may be closed: what waits would leave after that, unwatched."""
        return not self._mark or self.has_left(self._mark)

    def lost(self) -> None:
        """Take that the connection is closed next: what must not leave unwatched is dropped."""
        if not self.may_close():
            self.drop_unsent_on_close()
        self.is_lost = True
        if self.on_lost is not None:
            self.on_lost()

    def _unsent(self) -> int:
        waiting = self.transport.get_write_buffer_size()
        return waiting if self.is_lost else waiting + sockets.unsent(self._descriptor)

    def drop(self) -> None:
        """Close the connection, and drop whatever was not sent: once it is lost, nothing can leave."""
        self.drop_unsent_on_close()
        self.transport.abort()

    def drop_unsent_on_close(self) -> None:
        """Make closing drop what was not sent, as long as it is not closed."""
        if not self.is_lost:
            sockets.drop_unsent_on_close(self._descriptor)

    async def cut(self) -> None:
        """Drop the connection and whatever was not sent; return when nothing can leave any more."""
        self.drop()
        while not self.is_lost:  # noqa: ASYNC110  the loop closes it in its next turn
            await asyncio.sleep(0)

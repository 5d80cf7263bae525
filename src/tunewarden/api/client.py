"""The other end of a connection: written to, waited for, and cut off.

A deletion must be able to drop bytes that wait in our buffers (I2), and a client's going away must abort its
request at once; ASGI itself offers neither, so the client is put into the scope.
"""

import asyncio
from collections.abc import Callable

from tunewarden.serving import sockets

EXTENSION = "tunewarden.client"


class Client:
    """The other end of a connection."""

    __slots__ = ("_descriptor", "is_lost", "loop", "on_lost", "transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self.loop = loop
        self.is_lost = False
        self.on_lost: Callable[[], object] | None = None
        # Ours until the connection is lost; then its number may be another's.
        self._descriptor = sockets.descriptor_of(transport)

    def write(self, data: bytes) -> None:
        """Write, unless the connection is lost; what the kernel does not take now waits."""
        if not self.is_lost:
            sockets.write(self.transport, self._descriptor, data)

    def has_unsent(self) -> bool:
        """Tell whether bytes that we wrote wait in our buffer or in the kernel's."""
        if self.transport.get_write_buffer_size() > 0:
            return True
        return not self.is_lost and sockets.has_unsent(self._descriptor)

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

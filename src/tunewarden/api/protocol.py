"""uvicorn's HTTP protocol, with two additions: its client can be cut off, and headers are bounded.

A deletion must be able to drop bytes that wait in the transport's buffer (I2), and a client's going
away must abort its request at once; ASGI itself offers neither, so the client is put into the scope.
"""

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "tunewarden.client"
HEAD_BYTES_MAX = 64 * 1024  # OpenAI asks its clients for less than 64 KiB
SIOCOUTQNSD = 0x894B  # linux/sockios.h: bytes in a TCP socket's queue that were not sent yet


class Client:
    """The other end of a connection."""

    __slots__ = ("is_lost", "on_lost", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.is_lost = False
        self.on_lost: Callable[[], object] | None = None

    def has_unsent(self) -> bool:
        """Tell whether bytes that we wrote wait in our buffer or in the kernel's."""
        if self.transport.get_write_buffer_size() > 0:
            return True
        # The descriptor is ours until the connection is lost; then its number may be another's.
        return not self.is_lost and _unsent_in_kernel(self._descriptor()) > 0

    async def cut(self) -> None:
        """Drop the connection and whatever was not sent; return when nothing can leave any more."""
        if not self.is_lost:
            # A duplicate: uvloop's sockets set no options. Closing then means RST and an empty queue.
            with socket.socket(fileno=os.dup(self._descriptor())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        while not self.is_lost:  # noqa: ASYNC110  the loop closes it in its next turn
            await asyncio.sleep(0)

    def _descriptor(self) -> int:
        return int(self.transport.get_extra_info("socket").fileno())


class ClientProtocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools on uvicorn."""

    peer: Client
    head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the client."""
        super().connection_made(transport)
        self.peer = Client(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is running."""
        super().connection_lost(exc)
        self.peer.is_lost = True
        if self.peer.on_lost is not None:
            self.peer.on_lost()

    def on_message_begin(self) -> None:
        """Give the request a way to its client."""
        super().on_message_begin()
        self.head_bytes = 0
        self.scope["extensions"] = {EXTENSION: self.peer}  # type: ignore[dict-item]

    def on_url(self, url: bytes) -> None:
        """Count."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count."""
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def _count(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > HEAD_BYTES_MAX:
            self.transport.abort()


def _unsent_in_kernel(descriptor: int) -> int:
    answer = fcntl.ioctl(descriptor, SIOCOUTQNSD, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])

"""The least that a proxy in Python can do: each connection has one of its own upstream, bytes go to and fro.

`python -m benchmarks.peers.raw_proxy PORT UPSTREAM_PORT`. The measure of benchmarks/peers/guard.py.
"""

import asyncio
import sys
from typing import cast


class Side(asyncio.Protocol):
    """One side; what comes in goes out at the other, or waits until that is there."""

    def __init__(self) -> None:
        self.other: Side | None = None
        self.waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what waited."""
        self.transport = cast("asyncio.Transport", transport)
        for data in self.waiting:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        assert self.other is not None
        if hasattr(self.other, "transport"):
            self.other.transport.write(data)
        else:
            self.other.waiting.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side too."""
        if self.other is not None and hasattr(self.other, "transport"):
            self.other.transport.close()


class Front(Side):
    """The client's side."""

    def __init__(self, upstream: int) -> None:
        super().__init__()
        self.upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have a connection upstream."""
        super().connection_made(transport)
        back = Side()
        back.other, self.other = self, back
        loop = asyncio.get_running_loop()
        self.connecting = loop.create_task(
            loop.create_connection(lambda: back, "127.0.0.1", self.upstream)
        )


async def main(port: int, upstream: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Front(upstream), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

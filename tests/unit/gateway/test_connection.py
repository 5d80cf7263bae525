"""What has left and what has not, on real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvloop

from tunewarden.gateway.connection import ClientConnection
from tunewarden.gateway.flushes import Flushes

MUCH = b"x" * 20_000_000  # more than both kernels take


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[ClientConnection, socket.socket]]:
    """A client, and the socket at its end, which reads nothing by itself."""
    loop = asyncio.get_running_loop()
    clients: asyncio.Queue[ClientConnection] = asyncio.Queue()

    class _Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.client = ClientConnection(cast("asyncio.Transport", transport), loop, Flushes())
            clients.put_nowait(self.client)

        def connection_lost(self, exc: Exception | None) -> None:
            self.client.lost()

    server = await loop.create_server(_Server, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as end:
        client = await clients.get()
        yield client, end
        client.transport.abort()
    server.close()


def run(scenario: Callable[[ClientConnection, socket.socket], Coroutine[None, None, None]]) -> None:
    async def whole() -> None:
        async with connected() as (client, end):
            await scenario(client, end)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def test_what_was_written_before_has_left_while_what_came_behind_waits() -> None:
    async def scenario(client: ClientConnection, end: socket.socket) -> None:
        client.guard()
        client.write(b"answer")
        assert not client.may_close(), "it is not known to be all"
        mark = client.mark()
        assert client.is_acknowledged(mark)
        client.write(MUCH)
        assert client.has_unsent()
        assert client.is_acknowledged(mark)
        assert not client.is_acknowledged(client.mark())
        assert not client.may_close()

    run(scenario)


@pytest.mark.long
@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_lost_connection_sends_on_only_what_nobody_watches(*, is_guarded: bool) -> None:
    async def scenario(client: ClientConnection, end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.guard()
        client.write(b"answer")
        assert client.is_acknowledged(client.mark())
        if is_guarded:
            client.guard()
        client.write(b"x" * 200_000)
        assert not client.is_backed_up, "the kernel has it all"
        assert client.has_unsent()
        await closed(client)
        read = 0
        end.settimeout(5)
        try:
            while piece := end.recv(1 << 16):
                read += len(piece)
        except ConnectionResetError:
            assert is_guarded
        assert (read < 200_000) is is_guarded

    run(scenario)


def test_a_connection_whose_answers_have_left_ends_in_order() -> None:
    async def scenario(client: ClientConnection, end: socket.socket) -> None:
        client.guard()
        client.write(b"answer")
        client.mark()
        await closed(client)
        end.settimeout(5)
        assert end.recv(100) == b"answer"
        assert end.recv(100) == b"", "and is not reset"

    run(scenario)


async def closed(client: ClientConnection) -> None:
    lost = asyncio.Event()
    client.on_lost = lost.set
    client.transport.close()
    await lost.wait()

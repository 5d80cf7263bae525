"""A request on a kept connection that was closed before it answered: when it is sent again, and when not."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.servers import wait_until

from tunewarden.engines.address import Address
from tunewarden.engines.upstream import Upstream

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
# An engine in a process of its own: answers once, and ends at the next request.
ENGINE = f"""
import os, socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1] + ".new")
listening.listen()
os.rename(sys.argv[1] + ".new", sys.argv[1])
connection, _ = listening.accept()
connection.recv(65536)
connection.sendall({ANSWER!r})
connection.recv(65536)
"""


class _Engine:
    """Answers the first request on each connection and closes it at the second; counts them all."""

    def __init__(self) -> None:
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"{}")
            self.requests += 1
            writer.write(ANSWER)
            await reader.readuntil(b"{}")
            self.requests += 1
        writer.close()


async def _ask(upstream: Upstream) -> int:
    return (await upstream.ask("/x", b"{}", 100))[0]


def test_it_is_sent_once_more_and_on_a_new_connection(tmp_path: Path) -> None:
    """However many kept connections there are that would close too."""
    path, engine = str(tmp_path / "s"), _Engine()

    async def ask_all() -> None:
        async with await asyncio.start_unix_server(engine.serve, path):
            upstream = Upstream(Address(socket=path))
            await asyncio.gather(*(_ask(upstream) for _ in range(8)))
            assert engine.requests == 8
            assert await _ask(upstream) == 200
            upstream.close()
            await asyncio.sleep(0.05)

    asyncio.run(ask_all())
    assert engine.requests == 10, "on one kept connection, and on a new one"


def test_what_an_engine_died_of_is_not_given_to_the_next_one(tmp_path: Path) -> None:
    path, next_one = tmp_path / "s", _Engine()

    def put_aside() -> None:
        path.rename(tmp_path / "old")

    async def ask_all() -> None:
        upstream = Upstream(Address(socket=str(path)))
        assert await _ask(upstream) == 200
        # The next one listens before the first is gone: only its process tells them apart.
        put_aside()
        async with await asyncio.start_unix_server(next_one.serve, str(path)):
            with pytest.raises(ConnectionError):
                await _ask(upstream)
            assert next_one.requests == 0
            # Control: the next request is answered by it.
            assert await _ask(upstream) == 200
            upstream.close()
            await asyncio.sleep(0.05)

    with subprocess.Popen([sys.executable, "-c", ENGINE, str(path)]):
        wait_until(path.exists, "the first engine listens")
        asyncio.run(ask_all())
    assert next_one.requests == 1

"""An engine's kept connection repeats its heads: each answer means what it says, however it comes."""

import asyncio
import contextlib
import random
from pathlib import Path

from tunewarden.engines.address import Address
from tunewarden.engines.upstream import Upstream

SEED = 5
ANSWERS = 400


def _answer(numbers: random.Random) -> tuple[int, bytes, bytes]:
    """Return a status, a body and the answer's bytes; heads are mostly equal but for the length."""
    body = bytes(numbers.randrange(256) for _ in range(numbers.choice([0, 1, 9, 10, 99, 100, 300])))
    status = numbers.choice([200, 200, 200, 200, 429])
    lines = [f"HTTP/1.1 {status} X", numbers.choice(["server: a", "server: a", "server: bb"])]
    kind = numbers.choice(["length", "length", "length", "chunked", "late"])
    length = f"content-length: {len(body)}"
    if kind == "chunked":
        lines.append("transfer-encoding: chunked")
        written = b"".join(b"1\r\n%c\r\n" % one for one in body) + b"0\r\n\r\n"
        return status, body, "\r\n".join([*lines, "", ""]).encode() + written
    lines.insert(1 if kind == "length" else 2, length)
    return status, body, "\r\n".join([*lines, "", ""]).encode() + body


def test_each_answer_on_a_kept_connection_is_its_own(tmp_path: Path) -> None:
    numbers = random.Random(SEED)
    answers = [_answer(numbers) for _ in range(ANSWERS)]
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _, _, data in answers:
            await reader.readuntil(b"{}")
            border = numbers.choice([0, 0, 0, len(data) // 2, len(data) - 1])
            for piece in (data[:border], data[border:]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.0005 if border else 0)
        writer.close()

    async def ask_all() -> list[tuple[int, bytes]]:
        path = str(tmp_path / "engine.sock")
        async with await asyncio.start_unix_server(serve, path):
            upstream = Upstream(Address(socket=path))
            found = [await upstream.ask("/x", b"{}", 10**6) for _ in answers]
            upstream.close()
            await asyncio.sleep(0.1)
            return found

    assert asyncio.run(ask_all()) == [(status, body) for status, body, _ in answers]
    print(f"seed {SEED}: {ANSWERS} answers on {connections} connection")
    assert connections == 1


def test_a_connection_with_bytes_behind_a_known_answer_is_not_used_again(tmp_path: Path) -> None:
    connections = 0
    behind = b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n"
    answer = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for count in range(4):
                await reader.readuntil(b"{}")
                writer.write(answer + behind * (count == 2))
        writer.close()

    async def ask_all() -> None:
        path = str(tmp_path / "engine.sock")
        async with await asyncio.start_unix_server(serve, path):
            upstream = Upstream(Address(socket=path))
            for _ in range(4):
                assert await upstream.ask("/x", b"{}", 10**6) == (200, b"ok")
            upstream.close()
            await asyncio.sleep(0.1)  # the other side sees it, and closes as well

    asyncio.run(ask_all())
    assert connections == 2

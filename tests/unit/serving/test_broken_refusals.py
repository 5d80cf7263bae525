"""An engine that breaks off in the middle of a refusal is an engine that is not available."""

import asyncio
from pathlib import Path

import pytest

from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.serving.admission import Target
from tunewarden.serving.gateway import Gateway
from tunewarden.serving.upstream import Address, Upstream


class SocketEngine:
    """Whatever listens on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.upstream = Upstream(Address(socket=str(path)))

    async def load(self, target: Target) -> None:
        pass

    def unload(self, target: Target) -> None:
        pass


async def _break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"{}")
    writer.write(b'HTTP/1.1 404 Not Found\r\ncontent-length: 1000\r\n\r\n{"error"')
    await writer.drain()
    writer.close()


async def _ask(path: Path) -> None:
    engine = SocketEngine(path)
    gateway = Gateway(engine, lambda _: engine)
    target = Target(Base("b", BaseKind.LOCAL, "", "b", "{}", 0), None)
    async with await asyncio.start_unix_server(_break_off, path):
        await gateway.send(target, "/chat/completions", b"{}")


def test_a_refusal_that_is_broken_off_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        asyncio.run(_ask(tmp_path / "engine.sock"))
    assert caught.value.kind is Kind.UNAVAILABLE

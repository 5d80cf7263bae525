"""An engine that breaks off in the middle of a refusal is an engine that is not available."""

import asyncio
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.served import Target
from tunewarden.serving.address import Address
from tunewarden.serving.gateway import Gateway
from tunewarden.serving.upstream import Upstream


class SocketEngine:
    """Whatever listens on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.upstream = Upstream(Address(socket=str(path)))

    def has(self, target: Target) -> bool:
        return True

    async def load(self, target: Target) -> None:
        pass

    def unload(self, target: Target) -> None:
        pass


class Heard:
    """What came of a call."""

    def __init__(self) -> None:
        self.error: asyncio.Future[Error] = asyncio.get_running_loop().create_future()

    def begun(self, status: int, headers: dict[bytes, bytes]) -> None:
        raise AssertionError("a refusal is not passed on before it is whole")

    def heard(self, piece: bytes, *, is_end: bool) -> None:
        raise AssertionError("a refusal is not passed on before it is whole")

    def failed(self, error: Error) -> None:
        self.error.set_result(error)


async def _break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"{}")
    writer.write(b'HTTP/1.1 404 Not Found\r\ncontent-length: 1000\r\n\r\n{"error"')
    await writer.drain()
    writer.close()


async def _ask(path: Path) -> Error:
    engine = SocketEngine(path)
    gateway = Gateway(engine, lambda _: engine, per_engine_max=1, per_model_max=1)
    target = Target("b", Base("b", BaseKind.LOCAL, "", "b", "{}", 0), None, "b")
    heard = Heard()
    async with await asyncio.start_unix_server(_break_off, path):
        gateway.call(target, "/chat/completions", b"{}", heard).begin()
        return await heard.error


def test_a_refusal_that_is_broken_off_is_unavailable(tmp_path: Path) -> None:
    assert asyncio.run(_ask(tmp_path / "engine.sock")).kind is Kind.UNAVAILABLE

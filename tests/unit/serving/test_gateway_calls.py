"""What the gateway tells an engine, and what it makes of a refusal."""

import asyncio
from pathlib import Path

import pytest

from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.served import Target
from tunewarden.serving.address import Address
from tunewarden.serving.gateway import Gateway
from tunewarden.serving.upstream import Upstream

BASE = Base("b", BaseKind.LOCAL, "", "b", "{}", 0)


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
    target = Target("b", BASE, None, "b")
    heard = Heard()
    async with await asyncio.start_unix_server(_break_off, path):
        gateway.call(target, "org_1", "/chat/completions", b"{}", heard).begin()
        return await heard.error


def test_a_refusal_that_is_broken_off_is_unavailable(tmp_path: Path) -> None:
    assert asyncio.run(_ask(tmp_path / "engine.sock")).kind is Kind.UNAVAILABLE


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (Target("b", BASE, None, "b"), b"tunewarden-asked-by: org_1"),
        (Target("ft:b", BASE, 7, "m_1"), None),
    ],
)
def test_who_asks_is_said_of_a_base_only(tmp_path: Path, target: Target, line: bytes) -> None:
    async def asked() -> bytes:
        heads: asyncio.Queue[bytes] = asyncio.Queue()

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.put_nowait(await reader.readuntil(b"\r\n\r\n"))
            assert await reader.readexactly(2) == b"{}"
            writer.close()

        path = tmp_path / "engine.sock"
        engine = SocketEngine(path)
        gateway = Gateway(engine, lambda _: engine, per_engine_max=1, per_model_max=1)
        async with await asyncio.start_unix_server(hear, path):
            gateway.call(target, "org_1", "/chat/completions", b"{}", Heard()).begin()
            return await heads.get()

    said = [one for one in asyncio.run(asked()).split(b"\r\n") if b"asked-by" in one]
    assert said == ([line] if line else [])

"""What the gateway tells an engine, and what it makes of a refusal."""

import asyncio
from pathlib import Path

import pytest

from tunewarden.engine_protocol import paths
from tunewarden.engines.address import Address
from tunewarden.engines.upstream import Upstream
from tunewarden.errors import Error, Kind
from tunewarden.gateway.routing import Gateway
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.model_lookup import Target

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

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        raise AssertionError("a refusal is not passed on before it is whole")

    def received(self, piece: bytes, *, is_end: bool) -> None:
        raise AssertionError("a refusal is not passed on before it is whole")

    def failed(self, error: Error) -> None:
        self.error.set_result(error)


BROKEN_OFF = b'HTTP/1.1 404 Not Found\r\ncontent-length: 1000\r\n\r\n{"error"'


def _refusal(body: bytes) -> bytes:
    return b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def _ask(path: Path, answer: bytes) -> Error:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(answer)
        await writer.drain()
        writer.close()

    engine = SocketEngine(path)
    gateway = Gateway(engine, lambda *_: engine, per_engine_max=1, per_model_max=1)
    target = Target("b", BASE, None, "b")
    heard = Heard()
    async with await asyncio.start_unix_server(say, path):
        gateway.call(target, "org_1", "/chat/completions", b"{}", heard).begin()
        return await heard.error


def test_a_refusal_that_is_broken_off_is_unavailable(tmp_path: Path) -> None:
    assert asyncio.run(_ask(tmp_path / "engine.sock", BROKEN_OFF)).kind is Kind.UNAVAILABLE


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"message": "It was deleted.", "code": "model_deleted"}}', "model_deleted"),
        # It is loaded and asked once more; then the engine is one that is starting.
        (
            b'{"error": {"message": "Not here.", "code": "adapter_not_loaded"}}',
            "engine_unavailable",
        ),
        (b'{"error": {"message": "No such route."}}', "not_offered"),
        (b'{"error": {"message": "The model is unknown.", "code": 404}}', "not_offered"),
        (b'{"error": {"message": "\xe9", "code": "NotFound"}}', "not_offered"),
        (b'{"detail": "Not Found"}', "not_offered"),
        (b"<html>", "not_offered"),
    ],
)
def test_what_a_refusal_means_to_the_client(tmp_path: Path, body: bytes, code: str) -> None:
    assert asyncio.run(_ask(tmp_path / "engine.sock", _refusal(body))).code == code


@pytest.mark.parametrize("target", [Target("b", BASE, None, "b"), Target("ft:b", BASE, 7, "m_1")])
def test_the_embedded_engine_is_told_who_asks(tmp_path: Path, target: Target) -> None:
    async def asked() -> bytes:
        heads: asyncio.Queue[bytes] = asyncio.Queue()

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.put_nowait(await reader.readuntil(b"\r\n\r\n"))
            assert await reader.readexactly(2) == b"{}"
            writer.close()

        path = tmp_path / "engine.sock"
        engine = SocketEngine(path)
        gateway = Gateway(engine, lambda *_: engine, per_engine_max=1, per_model_max=1)
        async with await asyncio.start_unix_server(hear, path):
            gateway.call(target, "org_1", "/chat/completions", b"{}", Heard()).begin()
            return await heads.get()

    said = [one for one in asyncio.run(asked()).split(b"\r\n") if paths.ASKED_BY in one]
    assert said == [b"tunewarden-asked-by: org_1"]

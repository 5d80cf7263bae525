"""Stands in for `python -m tunewarden.embedded_engine.worker`: the same verbs on the same unix socket, no torch.

How a request is answered stands in its field `fake`: {"chunks", "pause", "size", "seconds"}. What it
says is `model` and the number of the chunk, so that a test can tell models apart.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from tunewarden import processes
from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import (
    VERSION,
    EvictedAdapter,
    EvictionAnswer,
    EvictionRequest,
    LoadedAdapter,
    LoadedBase,
    NewAdapter,
    NewBase,
    Problem,
    Refusal,
    State,
    decoded,
)

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = Refusal(Problem(message, code=code))


class EngineServer:
    """Bases, adapters, and what runs on each."""

    def __init__(
        self, *, is_careless: bool = False, residue: float = 0.0, version: int = VERSION
    ) -> None:
        self._is_careless = is_careless
        self._residue = residue
        self._version = version
        self.incarnation = os.urandom(12).hex()
        self.bases: dict[str, str] = {}
        self.adapters: dict[str, str] = {}  # and its base
        self.refused: set[str] = set()
        self.running: dict[str, set[asyncio.Task[None]]] = {}

    async def serve(self, socket_path: Path) -> None:
        server = await asyncio.start_unix_server(self._connected, socket_path)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ")
                size = 0
                while (header := await reader.readline()) not in {b"\r\n", b""}:
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        size = int(value)
                body = await reader.readexactly(size)
                if path in {paths.CHAT_COMPLETIONS, paths.COMPLETIONS}:
                    await self._infer(json.loads(body), reader, writer)
                else:
                    _answer(writer, *self._verb(method, path, body))
        writer.transport.abort()

    def _verb(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        try:
            return 200, self._done(method, path, body)
        except Refused as refused:
            return refused.status, refused.body

    def _done(self, method: str, path: str, body: bytes) -> msgspec.Struct:
        match method, path:
            case "GET", paths.STATE:
                bases = [self._base(name) for name in self.bases]
                tombstones = sorted(self.refused)
                return State(self._version, os.getpid(), self.incarnation, bases, tombstones)
            case "POST", paths.BASES:
                base = decoded(body, NewBase)
                self.bases[base.name] = base.path
                return self._base(base.name)
            case "POST", paths.ADAPTERS:
                return self._load(decoded(body, NewAdapter))
            case "POST", paths.EVICTIONS:
                names = decoded(body, EvictionRequest).names
                evicted = [self._evict(name) for name in names]
                return EvictionAnswer(self._version, self.incarnation, evicted)
        raise Refused(404, "no such verb")

    def _base(self, name: str) -> LoadedBase:
        return LoadedBase(name, [one for one, base in self.adapters.items() if base == name])

    def _load(self, asked: NewAdapter) -> LoadedAdapter:
        if asked.base not in self.bases:
            raise Refused(404, "the base is not loaded", Code.BASE_NOT_LOADED)
        if asked.name in self.refused:
            raise Refused(404, "the name was evicted", Code.MODEL_DELETED)
        for name in ADAPTER_FILES:
            path = Path(asked.path) / name
            assert path.read_bytes()
            path.unlink()
        self.adapters[asked.name] = asked.base
        return LoadedAdapter(asked.name, asked.base, self.incarnation)

    def _evict(self, name: str) -> EvictedAdapter:
        self.refused.add(name)
        tasks = self.running.pop(name, set())
        for task in [] if self._is_careless else tasks:
            task.cancel()
        was_loaded = self.adapters.pop(name, None) is not None
        residue = self._residue if was_loaded else 0.0
        return EvictedAdapter(name, was_loaded, len(tasks), residue)

    async def _infer(
        self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        model, how = body["model"], body.get("fake") or {}
        if model not in self.adapters and model not in self.bases:
            refused = Refused(404, f"{model} is not loaded", Code.ADAPTER_NOT_LOADED)
            _answer(writer, refused.status, refused.body)
            return
        with self._noted(model):
            gone = asyncio.ensure_future(reader.read(1))
            said = asyncio.ensure_future(
                _say(writer, model, how, is_stream=bool(body.get("stream")))
            )
            try:
                await asyncio.wait([gone, said], return_when=asyncio.FIRST_COMPLETED)
                if not said.done():
                    raise ConnectionResetError
                said.result()
            finally:
                said.cancel()
                gone.cancel()
                with suppress(asyncio.CancelledError):
                    await gone

    @contextmanager
    def _noted(self, model: str) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        tasks = self.running.setdefault(model, set())
        tasks.add(task)
        try:
            yield
        finally:
            tasks.discard(task)


async def _say(
    writer: asyncio.StreamWriter, model: str, how: dict[str, Any], *, is_stream: bool
) -> None:
    chunks, size = how.get("chunks", 5), how.get("size", 8)
    if not is_stream:
        await asyncio.sleep(how.get("seconds", 0))
        message = {"role": "assistant", "content": "x" * size}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        _answer(writer, 200, {"model": model, "choices": [choice], "usage": _usage(1)})
        return
    writer.write(HEAD)
    for number in range(chunks):
        delta = {"content": f"{number} " + "x" * size}
        _event(writer, {"model": model, "choices": [{"index": 0, "delta": delta}]})
        await writer.drain()
        await asyncio.sleep(how.get("pause", 0))
    _event(writer, {"model": model, "choices": [], "usage": _usage(chunks)})
    _chunk(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _usage(chunks: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": chunks, "total_tokens": chunks + 1}


def _event(writer: asyncio.StreamWriter, event: object) -> None:
    _chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _answer(writer: asyncio.StreamWriter, status: int, body: object) -> None:
    encoded = msgspec.json.encode(body)
    head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(encoded)}\r\n\r\n".encode() + encoded)


def main() -> None:
    """Serve until killed; the supervisor's options."""
    processes.die_with(os.getppid())
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--parent")
    parser.add_argument("--threads")
    parser.add_argument("--dtype")
    parser.add_argument("--log-format")
    path: Path = parser.parse_args().socket
    path.unlink(missing_ok=True)
    server = EngineServer(
        is_careless="TEST_CARELESS" in os.environ,
        residue=float(os.environ.get("TEST_RESIDUE", "0")),
        version=int(os.environ.get("TEST_VERSION", VERSION)),
    )
    asyncio.run(server.serve(path))


if __name__ == "__main__":
    main()

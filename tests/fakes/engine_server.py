"""Stands in for `python -m tunewarden.engine.worker`: the same verbs on the same unix socket, no torch.

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

from tunewarden import processes

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "", "param": None, "code": code}}


class EngineServer:
    """Bases, adapters, and what runs on each."""

    def __init__(self, *, is_careless: bool = False) -> None:
        self._is_careless = is_careless
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
                body = json.loads(await reader.readexactly(size)) if size else {}
                if path.startswith("/v1/"):
                    await self._infer(body, reader, writer)
                else:
                    _answer(writer, *self._verb(method, path, body))
        writer.transport.abort()

    def _verb(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, object]:
        try:
            return 200, self._done(method, path, body)
        except Refused as refused:
            return refused.status, refused.body

    def _done(self, method: str, path: str, body: dict[str, Any]) -> object:
        match method, path.split("/")[1:]:
            case "GET", ["engine", "state"]:
                loaded = {
                    name: [a for a, b in self.adapters.items() if b == name] for name in self.bases
                }
                bases = [{"name": name, "adapters": adapters} for name, adapters in loaded.items()]
                return {"pid": os.getpid(), "bases": bases}
            case "POST", ["engine", "bases"]:
                self.bases[body["name"]] = body["path"]
                return {"name": body["name"]}
            case "POST", ["engine", "adapters"]:
                return self._load(body)
            case "DELETE", ["engine", "adapters", name]:
                self.refused.add(name)
                tasks = self.running.pop(name, set())
                for task in [] if self._is_careless else tasks:
                    task.cancel()
                was_loaded = self.adapters.pop(name, None) is not None
                return {
                    "name": name,
                    "was_loaded": was_loaded,
                    "aborted": len(tasks),
                    "zeroed": True,
                }
        raise Refused(404, "no such verb")

    def _load(self, body: dict[str, Any]) -> object:
        if body["base"] not in self.bases:
            raise Refused(404, "the base is not loaded", "base_not_loaded")
        if body["name"] in self.refused:
            raise Refused(404, "the name was evicted", "adapter_evicted")
        for name in ADAPTER_FILES:
            path = Path(body["path"]) / name
            assert path.read_bytes()
            path.unlink()
        self.adapters[body["name"]] = body["base"]
        return {"name": body["name"]}

    async def _infer(
        self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        model, how = body["model"], body.get("fake") or {}
        if model not in self.adapters and model not in self.bases:
            refused = Refused(404, f"{model} is not loaded", "adapter_not_loaded")
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
    encoded = json.dumps(body).encode()
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
    path: Path = parser.parse_args().socket
    path.unlink(missing_ok=True)
    asyncio.run(EngineServer(is_careless="TEST_CARELESS" in os.environ).serve(path))


if __name__ == "__main__":
    main()

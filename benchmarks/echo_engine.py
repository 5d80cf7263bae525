"""Stands in for the embedded engine: says whose adapter answers and what it was asked, so that a mix-up is seen.

The same verbs on the same unix socket, one uvloop, about 50 µs a request. What it says is "<engine's name of the
model>|<last message>|<number of the chunk>". A request's field `fake` says how: {"chunks", "pause": seconds before each
chunk but the first, "silent": whether the stream then stays open}. Environment: BENCH_SLOTS and BENCH_SLOT_SECONDS give
it as many places as that and a time that each request occupies one; the others wait in order. BENCH_CONTROL=wrong-answer
makes each 500th answer that of the request before, BENCH_CONTROL=wrong-model each 500th one of another model, and with
BENCH_CONTROL=careless what runs on a model that is evicted goes on.
"""

import argparse
import asyncio
import os
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

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

SLOTS, SLOT_SECONDS, CONTROL = "BENCH_SLOTS", "BENCH_SLOT_SECONDS", "BENCH_CONTROL"
CONTROLS = ("wrong-answer", "wrong-model", "careless")
WRONG_EACH = 500
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NOT_LOADED = Refusal(Problem("not loaded", code=Code.ADAPTER_NOT_LOADED))
EVICTED = Refusal(Problem("the name was evicted", code=Code.MODEL_DELETED))


class Engine:
    """What it has, what runs on it, and who waits for a place."""

    def __init__(self, *, slots: int, slot_seconds: float, control: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.incarnation = os.urandom(12).hex()
        self.bases: dict[str, str] = {}
        self.adapters: dict[str, str] = {}  # and its base
        self.refused: set[str] = set()
        self.running: dict[str, set[Connection]] = {}
        self.control = control
        self.last_prompt = ""
        self._answers = 0
        self._free, self._slot_seconds = slots, slot_seconds
        self._waiting: deque[Callable[[], None]] = deque()

    def verb(self, path: str, body: bytes) -> tuple[int, msgspec.Struct]:
        """Do one of the verbs."""
        if path == paths.STATE:
            bases = [self._base(name) for name in self.bases]
            tombstones = sorted(self.refused)
            return 200, State(VERSION, os.getpid(), self.incarnation, bases, tombstones)
        if path == paths.BASES:
            base = decoded(body, NewBase)
            self.bases[base.name] = base.path
            return 200, self._base(base.name)
        if path == paths.EVICTIONS:
            evicted = [self._evict(name) for name in decoded(body, EvictionRequest).names]
            return 200, EvictionAnswer(VERSION, self.incarnation, evicted)
        asked = decoded(body, NewAdapter)
        if asked.name in self.refused:
            return 404, EVICTED
        for file in Path(asked.path).iterdir():
            file.unlink()
        self.adapters[asked.name] = asked.base
        return 200, LoadedAdapter(asked.name, asked.base, self.incarnation)

    def _base(self, name: str) -> LoadedBase:
        return LoadedBase(name, [one for one, base in self.adapters.items() if base == name])

    def _evict(self, name: str) -> EvictedAdapter:
        self.refused.add(name)
        running = self.running.pop(name, set())
        for connection in running if self.control != "careless" else ():
            connection.abort()
        was_loaded = self.adapters.pop(name, None) is not None
        return EvictedAdapter(name, was_loaded, len(running), residue=0.0)

    def said(self, model: str, prompt: str) -> str:
        """Return what is said to a prompt, but for the chunk's number; a control says something else."""
        self._answers += 1
        before, self.last_prompt = self.last_prompt, prompt
        if self.control.startswith("wrong") and self._answers % WRONG_EACH == 0:
            if self.control == "wrong-answer":
                prompt = before
            else:
                model = next((name for name in self.adapters if name != model), model)
        return f"{model}|{prompt}"

    def serve(self, answer: Callable[[], None]) -> None:
        """Call when there was a place, and its time is over."""
        if not self._slot_seconds:
            answer()
        elif self._free:
            self._free -= 1
            self.loop.call_later(self._slot_seconds, self._served, answer)
        else:
            self._waiting.append(answer)

    def _served(self, answer: Callable[[], None]) -> None:
        answer()
        if self._waiting:
            self.loop.call_later(self._slot_seconds, self._served, self._waiting.popleft())
        else:
            self._free += 1


class Connection(asyncio.Protocol):
    """One connection; its requests come one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._came = b""
        self._model = ""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop."""
        self._done()

    def abort(self) -> None:
        """Break off what is said."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take a request, when it is whole."""
        came = self._came = self._came + data if self._came else data
        border = came.find(b"\r\n\r\n") + 4
        if border < 4:
            return
        length = LENGTH.search(came, 0, border)
        if len(came) < border + (int(length[1]) if length else 0):
            return
        self._came = b""
        _, path, _ = came[: came.index(b"\r\n")].decode().split(" ")
        body = came[border:]
        if path in {paths.CHAT_COMPLETIONS, paths.COMPLETIONS}:
            asked = msgspec.json.decode(body)
            self._engine.serve(lambda: self._infer(asked))
        else:
            self._answer(*self._engine.verb(path, body))

    def _infer(self, body: dict[str, Any]) -> None:
        engine, model = self._engine, body["model"]
        if self._transport.is_closing():
            return
        if model not in engine.adapters and model not in engine.bases:
            self._answer(404, NOT_LOADED)
            return
        said, how = engine.said(model, body["messages"][-1]["content"]), body.get("fake") or {}
        if not body.get("stream"):
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._answer(200, {"model": model, "choices": [choice], "usage": _usage(1)})
            return
        self._model = model
        engine.running.setdefault(model, set()).add(self)
        self._transport.write(HEAD)
        self._say(said, 0, how.get("chunks", 5), how)

    def _say(self, said: str, number: int, chunks: int, how: dict[str, Any]) -> None:
        if self._transport.is_closing():
            return
        pause = how.get("pause", 0)
        while number < chunks:
            delta = {"content": f"{said}|{number}"}
            self._event({"model": self._model, "choices": [{"index": 0, "delta": delta}]})
            number += 1
            if pause:
                later = self._engine.loop.call_later
                self._timer = later(pause, self._say, said, number, chunks, how)
                return
        if not how.get("silent"):
            self._event({"model": self._model, "choices": [], "usage": _usage(chunks)})
            self._transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            self._done()

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._model:
            self._engine.running.get(self._model, set()).discard(self)
            self._model = ""

    def _event(self, event: object) -> None:
        data = b"data: %b\n\n" % msgspec.json.encode(event)
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _answer(self, status: int, body: object) -> None:
        encoded = msgspec.json.encode(body)
        head = b"HTTP/1.1 %d -\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(encoded)) + encoded)


def _usage(chunks: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": chunks, "total_tokens": chunks + 1}


async def _serve(path: Path) -> None:
    engine = Engine(
        slots=int(os.environ.get(SLOTS, "1")),
        slot_seconds=float(os.environ.get(SLOT_SECONDS, "0")),
        control=os.environ.get(CONTROL, ""),
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: Connection(engine), path, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Serve until killed; the supervisor's options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    asked, _ = parser.parse_known_args()
    processes.die_with(asked.parent)
    asked.socket.unlink(missing_ok=True)
    uvloop.run(_serve(asked.socket))


if __name__ == "__main__":
    main()

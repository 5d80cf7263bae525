"""The engine's HTTP: OpenAI's two inference routes and our verbs, as one ASGI application.

It listens on a unix socket that only its owner can open, so there is no authentication here.
"""

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from tunewarden.clock import Clock
from tunewarden.engine.adapters import Engine, Served
from tunewarden.engine.answers import Answer, event, problem, status_of
from tunewarden.engine.generation import Abandoned, Generation
from tunewarden.engine.requests import Ask, parse_chat, parse_completion
from tunewarden.errors import Error, Kind

logger = logging.getLogger(__name__)

BODY_BYTES_MAX = 16 * 1024 * 1024
LONG_BODY_BYTES = 32 * 1024  # tokenizing more than this would hold up the other streams
# Names the organization that asks a base: it reuses its own prompts only.
ASKED_BY = b"tunewarden-asked-by"
ADAPTER_PATH = re.compile(r"/engine/adapters/([^/]+)(/abort)?")

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class NewBase(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /engine/bases."""

    name: str
    path: str


class NewAdapter(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /engine/adapters."""

    name: str
    base: str
    path: str


class Doors:
    """The ASGI application."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http"
        try:
            await self._route(scope, receive, send)
        except Error as error:
            await _answer_error(send, error)
        except Abandoned:
            return
        except Exception:
            logger.exception("a request failed")
            await _answer_error(send, Error(Kind.ENGINE_FAILED, "The engine failed.", code=None))

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["raw_path"].decode("ascii")
        adapter = ADAPTER_PATH.fullmatch(path)
        match method, path:
            case "POST", "/v1/chat/completions":
                await self._infer(parse_chat, scope, receive, send)
            case "POST", "/v1/completions":
                await self._infer(parse_completion, scope, receive, send)
            case "GET", "/health":
                await _answer(send, {"status": "ok"})
            case "GET", "/engine/state":
                await _answer(send, self._state())
            case "POST", "/engine/bases":
                await _answer(send, await self._load_base(await _read(receive)))
            case "POST", "/engine/adapters":
                await _answer(send, await self._load_adapter(await _read(receive)))
            case "DELETE", _ if adapter and not adapter[2]:
                name = unquote(adapter[1])
                done = await self._engine.evict(name)
                facts = {"was_loaded": done.was_loaded, "aborted": done.aborted, "zeroed": True}
                await _answer(send, {"name": name, **facts})
            case "POST", _ if adapter and adapter[2]:
                name = unquote(adapter[1])
                await _answer(send, {"name": name, "aborted": await self._engine.abort(name)})
            case _:
                raise Error(Kind.NOT_FOUND, f"Invalid URL ({method} {path})")

    async def _load_base(self, body: bytes) -> dict[str, Any]:
        asked = _decode(body, NewBase)
        await self._engine.load_base(asked.name, Path(asked.path))
        return _base_facts(self._engine.bases[asked.name])

    async def _load_adapter(self, body: bytes) -> dict[str, Any]:
        asked = _decode(body, NewAdapter)
        await self._engine.load_adapter(asked.name, asked.base, Path(asked.path))
        return {"name": asked.name, "base": asked.base}

    def _state(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "bases": [_base_facts(served) for served in self._engine.bases.values()],
            "tombstones": sorted(self._engine.tombstones),
        }

    async def _infer(
        self, parse: Callable[[bytes], Ask], scope: Scope, receive: Receive, send: Send
    ) -> None:
        body = await _read(receive)
        ask = parse(body)
        asked_by = dict(scope["headers"]).get(ASKED_BY, b"").decode("latin-1")
        generation = Generation(ask, *self._engine.find(ask.model), asked_by)
        if len(body) > LONG_BODY_BYTES:
            await asyncio.to_thread(generation.encode)
        else:
            generation.encode()
        answer = Answer(ask, generation.prompts, generation.base.tokenizer, self._clock)
        generation.start()
        watcher = asyncio.ensure_future(_watch(receive, generation))
        try:
            if ask.stream:
                await _stream(send, generation, answer)
            else:
                deltas = []
                while not generation.is_finished:
                    deltas += await generation.next()
                await _answer_bytes(send, 200, answer.whole(deltas))
        finally:
            watcher.cancel()
            generation.close()


async def _stream(send: Send, generation: Generation, answer: Answer) -> None:
    """Send chunks as steps give them. What fails before the first token is a plain HTTP error."""
    deltas = await generation.next()
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    chunks = answer.opening() + answer.chunks(deltas)
    try:
        while not generation.is_finished:
            await send({"type": "http.response.body", "body": chunks, "more_body": True})
            chunks = answer.chunks(await generation.next())
        chunks += answer.closing()
    except Error as error:
        chunks = event(problem(error))
    await send({"type": "http.response.body", "body": chunks})


async def _watch(receive: Receive, generation: Generation) -> None:
    """Abandon the generation as soon as the client closes its connection."""
    while (await receive())["type"] != "http.disconnect":
        continue
    generation.abandon()


async def _read(receive: Receive) -> bytes:
    parts, length = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Abandoned
        part: bytes = message.get("body", b"")
        length += len(part)
        if length > BODY_BYTES_MAX:
            raise Error(Kind.TOO_LARGE, f"The body is larger than {BODY_BYTES_MAX} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _answer(send: Send, entry: dict[str, Any]) -> None:
    await _answer_bytes(send, 200, msgspec.json.encode(entry))


async def _answer_error(send: Send, error: Error) -> None:
    headers = []
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", str(int(error.retry_after_seconds)).encode()))
    await _answer_bytes(send, status_of(error), msgspec.json.encode(problem(error)), headers)


async def _answer_bytes(
    send: Send, status: int, body: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *(more or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Error(Kind.INVALID, "The body of the request is not what this verb takes.") from error


def _base_facts(served: Served) -> dict[str, Any]:
    running, waiting = served.steps.counts()
    prefixes = served.steps.prefixes
    return {
        "name": served.name,
        "context": served.base.context,
        "vocabulary": served.base.vocabulary,
        "modules": sorted(served.base.layers),
        "adapters": sorted(served.slots.copy()),
        "slots": served.slots_max,
        "running": running,
        "waiting": waiting,
        "tokens_generated": served.steps.tokens_generated,
        "prefixes": {
            "blocks": len(prefixes),
            "bytes": prefixes.bytes_held,
            "bytes_max": prefixes.bytes_max,
            "blocks_erased": prefixes.blocks_erased,
            "tokens_reused": prefixes.tokens_reused,
        },
    }

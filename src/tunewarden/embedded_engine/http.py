"""The engine's HTTP API: three of OpenAI's inference routes and our operations, as one ASGI application.

It listens on a unix socket that only its owner can open, so there is no authentication here.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tunewarden.clock import Clock
from tunewarden.embedded_engine.answers import Answer, refusal, status_of
from tunewarden.embedded_engine.constraints import CONSTRAINT_CHARACTERS_MAX
from tunewarden.embedded_engine.engine import Engine, Served
from tunewarden.embedded_engine.fair_threads import FairThreads
from tunewarden.embedded_engine.generation import Abandoned, Generation
from tunewarden.embedded_engine.requests import PROMPTS_MAX, Ask, parse_chat, parse_completion
from tunewarden.embedded_engine.responses.answers import ResponseAnswer
from tunewarden.embedded_engine.responses.requests import in_its_words, parse_response
from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import (
    VERSION,
    AbortAnswer,
    EvictedAdapter,
    EvictionAnswer,
    EvictionRequest,
    LoadedAdapter,
    LoadedBase,
    NewAdapter,
    NewBase,
    Prefixes,
    State,
    decoded,
)
from tunewarden.errors import Error, Kind

logger = logging.getLogger(__name__)

BODY_BYTES_MAX = 8 * 1024 * 1024
VERB_BYTES_MAX = 64 * 1024
# Larger bodies, and those of more prompts, are parsed and tokenized in these threads, so as not to delay the other streams.
LONG_BODY_BYTES = 8 * 1024
PROMPTS_AT_ONCE = 16
TEXTS_AT_ONCE = 2
CONSTRAINTS_AT_ONCE = 2
# Longer responses are sent in parts of this size.
PART_BYTES = 64 * 1024
# Bytes of a body in addition to its text: names, roles, options.
SPARE_BYTES = 64 * 1024
SPARE_BYTES_A_MESSAGE = 128
# JSON may escape a byte of text as six: \u0041.
BYTES_A_LETTER = 6

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class HttpApi:
    """The ASGI application."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._texts = ThreadPoolExecutor(TEXTS_AT_ONCE, "texts")
        self._constraints = FairThreads(CONSTRAINTS_AT_ONCE, "constraints")

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
        match method, path:
            case "POST", paths.CHAT_COMPLETIONS:
                await self._infer(parse_chat, 1, scope, receive, send)
            case "POST", paths.COMPLETIONS:
                await self._infer(parse_completion, PROMPTS_MAX, scope, receive, send)
            case "POST", paths.RESPONSES:
                await self._infer(parse_response, 1, scope, receive, send)
            case "GET", paths.HEALTH:
                await _answer(send, {"status": "ok"})
            case "GET", paths.STATE:
                await _answer(send, self._state())
            case "POST", paths.BASES:
                await _answer(send, await self._load_base(await _read(receive, VERB_BYTES_MAX)))
            case "POST", paths.ADAPTERS:
                await _answer(send, await self._load_adapter(await _read(receive, VERB_BYTES_MAX)))
            case "POST", paths.EVICTIONS:
                await _answer(send, await self._evict(await _read(receive, VERB_BYTES_MAX)))
            case "POST", _ if name := paths.name_in_abort_path(path):
                await _answer(send, AbortAnswer(name, await self._engine.abort(name)))
            case _:
                raise Error(Kind.NOT_FOUND, f"Invalid URL ({method} {path})")

    async def _load_base(self, body: bytes) -> LoadedBase:
        asked = _decode(body, NewBase)
        await self._engine.load_base(asked.name, Path(asked.path))
        return _base_facts(self._engine.bases[asked.name])

    async def _load_adapter(self, body: bytes) -> LoadedAdapter:
        asked = _decode(body, NewAdapter)
        await self._engine.load_adapter(asked.name, asked.base, Path(asked.path))
        return LoadedAdapter(asked.name, asked.base, self._engine.incarnation)

    async def _evict(self, body: bytes) -> EvictionAnswer:
        names = _decode(body, EvictionRequest).names
        # All between the same two steps, if they are scheduled in time.
        found = await asyncio.gather(*(self._engine.evict(name) for name in names))
        evicted = [
            EvictedAdapter(name, one.was_loaded, one.aborted, one.residue)
            for name, one in zip(names, found, strict=True)
        ]
        return EvictionAnswer(VERSION, self._engine.incarnation, evicted)

    def _state(self) -> State:
        return State(
            version=VERSION,
            pid=os.getpid(),
            incarnation=self._engine.incarnation,
            bases=[_base_facts(served) for served in self._engine.bases.values()],
            tombstones=sorted(self._engine.tombstones),
        )

    async def _infer(
        self,
        parse: Callable[[bytes], Ask],
        prompts_max: int,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        body = await _read(receive, self._body_bytes_max(prompts_max))
        is_long = len(body) > LONG_BODY_BYTES
        ask = await self._in_thread(parse, body) if is_long else parse(body)
        is_long |= len(ask.prompts or ()) > PROMPTS_AT_ONCE
        asked_by = dict(scope["headers"]).get(paths.ASKED_BY, b"").decode("latin-1")
        generation = Generation(ask, *self._engine.find(ask.model), asked_by)

        def prepare() -> Answer | ResponseAnswer:
            if ask.response is None:
                generation.encode()
                return Answer(ask, generation.prompts, generation.base, self._clock)
            with in_its_words():
                generation.encode()
            return ResponseAnswer(ask, generation.prompts, generation.base, self._clock)

        answer = await self._in_thread(prepare) if is_long else prepare()
        if ask.constrains:
            await self._hold(generation)
        generation.start()
        watcher = asyncio.ensure_future(_watch(receive, generation))
        try:
            await (send_stream if ask.stream else send_whole)(send, generation, answer)
        finally:
            watcher.cancel()
            generation.close()

    async def _hold(self, generation: Generation) -> None:
        """Compile what the answers must look like, in a thread."""
        with nullcontext() if generation.ask.response is None else in_its_words():
            await self._constraints.run(generation.asked_by, generation.hold)

    def _body_bytes_max(self, prompts_max: int) -> int:
        """Return the largest body whose prompts can fit into the context of any base."""
        bases = [served.base for served in self._engine.bases.values()]
        text = prompts_max * max((base.text_bytes_max for base in bases), default=0)
        messages = SPARE_BYTES_A_MESSAGE * max((base.context for base in bases), default=0)
        spare = SPARE_BYTES + CONSTRAINT_CHARACTERS_MAX
        return min(BODY_BYTES_MAX, spare + messages + BYTES_A_LETTER * text)

    def _in_thread(self, work: Callable[..., T], *arguments: object) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._texts, work, *arguments)


async def send_stream(send: Send, generation: Generation, answer: Answer | ResponseAnswer) -> None:
    """Send chunks as they are produced. A failure before the first token is a plain HTTP error."""
    deltas = await generation.next()
    headers = [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache"),
        (paths.INPUT_TOKENS, b"%d" % sum(map(len, generation.prompts))),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    chunks = answer.opening() + answer.chunks(deltas)
    try:
        while not generation.is_finished:
            await send({"type": "http.response.body", "body": chunks, "more_body": True})
            chunks = answer.chunks(await generation.next())
        chunks += answer.closing()
    except Error as error:
        chunks = answer.failed(error)
    await send({"type": "http.response.body", "body": chunks})


async def send_whole(send: Send, generation: Generation, answer: Answer | ResponseAnswer) -> None:
    """Send one JSON object; a long one in parts, each in a turn of the event loop of its own."""
    while not generation.is_finished:
        answer.add(await generation.next())
    pieces = answer.whole()
    part = _part(pieces)
    await asyncio.sleep(0)
    following = _part(pieces)
    if not following:
        await _answer_bytes(send, 200, part)
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while part:
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0)
        part, following = following, _part(pieces)
    await send({"type": "http.response.body", "body": b""})


def _part(pieces: Iterator[bytes]) -> bytes:
    """Return the next pieces, PART_BYTES or a little more; nothing at the end."""
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= PART_BYTES:
            break
    return b"".join(taken)


async def _watch(receive: Receive, generation: Generation) -> None:
    """Abandon the generation when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        continue
    generation.abandon()


async def _read(receive: Receive, bytes_max: int) -> bytes:
    parts, length = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Abandoned
        part: bytes = message.get("body", b"")
        length += len(part)
        if length > bytes_max:
            text = (
                f"The body is larger than {bytes_max} bytes: no model here has room for its text."
            )
            raise Error(Kind.TOO_LARGE, text, code="context_length_exceeded")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _answer(send: Send, entry: dict[str, str] | msgspec.Struct) -> None:
    await _answer_bytes(send, 200, msgspec.json.encode(entry))


async def _answer_error(send: Send, error: Error) -> None:
    headers = []
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", str(int(error.retry_after_seconds)).encode()))
    await _answer_bytes(send, status_of(error), msgspec.json.encode(refusal(error)), headers)


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
        return decoded(body, kind)
    except ValueError as error:
        raise Error(Kind.INVALID, "The request body does not match this operation.") from error


def _base_facts(served: Served) -> LoadedBase:
    running, waiting = served.steps.counts()
    prefixes = served.steps.prefixes
    return LoadedBase(
        name=served.name,
        adapters=sorted(served.slots.copy()),
        slots=served.slots_max,
        context=served.base.context,
        vocabulary=served.base.vocabulary,
        modules=sorted(served.base.layers),
        running=running,
        waiting=waiting,
        tokens_generated=served.steps.tokens_generated,
        prefixes=Prefixes(
            blocks=len(prefixes),
            bytes=prefixes.bytes_held,
            bytes_max=prefixes.bytes_max,
            blocks_erased=prefixes.blocks_erased,
            tokens_reused=prefixes.tokens_reused,
        ),
    )

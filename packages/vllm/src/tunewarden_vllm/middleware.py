"""The ASGI middleware (`--middleware`): the engine protocol beside vLLM's OpenAI routes.

It checks at start, before vLLM listens, that it can keep what it promises (`start_checks`), and refuses to start else.
"""

import asyncio
import hmac
import logging
import os
import resource
import shutil
from importlib import import_module
from typing import Any, TypeVar

import msgspec

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import (
    VERSION,
    AbortAnswer,
    EvictionAnswer,
    EvictionRequest,
    LoadedAdapter,
    LoadedBase,
    NewBase,
    Renewal,
    Renewed,
    State,
    decoded,
)
from tunewarden.ids import token
from tunewarden_vllm import leases, pushes, start_checks, versions
from tunewarden_vllm.adapters import Adapters
from tunewarden_vllm.config import Settings
from tunewarden_vllm.exchange import CURRENT, Exchange
from tunewarden_vllm.leases import Leases
from tunewarden_vllm.refusals import Refused
from tunewarden_vllm.start_checks import Facts
from tunewarden_vllm.surface import Asgi, Receive, Scope, Send
from tunewarden_vllm.versions import NotSupported

# vLLM's own ways to load and unload adapters: they load any path, and unload without evicting.
CLOSED = (f"{paths.OPENAI}/load_lora_adapter", f"{paths.OPENAI}/unload_lora_adapter", "/adapters")
BODY_BYTES_MAX = 64 * 1024
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Middleware:
    """The engine protocol's routes; everything else is vLLM's."""

    def __init__(self, app: Asgi) -> None:
        versions.check_running()
        self._app = app
        # Identifies this process: it cannot make statements about an earlier one.
        self._incarnation = token(24)
        self._engine: _Engine | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].startswith(CLOSED):
            await _answer_refusal(
                send, Refused(403, "Tunewarden loads and unloads the adapters of this vLLM.")
            )
        elif scope["path"].startswith(paths.ENGINE):
            await self._answer(scope, receive, send)
        else:
            await self._infer(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start before vLLM's application does, or end the server."""
        startup = await receive()
        try:
            self._engine = await _Engine.started(scope["app"].state, self._incarnation)
        except NotSupported as error:
            text = f"tunewarden-vllm refuses to start vLLM: {error}"
            logger.critical("%s", text)
            await send({"type": "lifespan.startup.failed", "message": text})
            return
        messages = [startup]
        try:
            await self._app(scope, lambda: _first(messages, receive), send)
        finally:
            self._engine.close()

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(send)
        CURRENT.set(exchange)
        try:
            await self._app(scope, receive, exchange.send)
        finally:
            exchange.end()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._engine is not None, "a server that did not start answers nothing"
        try:
            self._engine.check_key(dict(scope["headers"]).get(b"authorization", b""))
            answer = await self._engine.answer(scope, receive)
        except Refused as refused:
            await _answer_refusal(send, refused)
        except pushes.Gone:
            return
        else:
            await _answer_bytes(send, 200, msgspec.json.encode(answer))


class _Engine:
    """The engine protocol's operations on a started vLLM."""

    def __init__(self, adapters: Adapters, facts: Facts, state: Any, incarnation: str) -> None:
        self._adapters = adapters
        self._leases = Leases(leases.boottime, adapters.drop)
        self._watching = asyncio.create_task(self._leases.watch())
        self._facts = facts
        self._bases = [one.name for one in state.openai_serving_models.base_model_paths]
        self._running = state.engine_client.output_processor.request_states
        self._incarnation = incarnation
        self._loading: dict[str, str] = {}  # adapters that are on their way, and their bases
        self._keys = start_checks.keys_of(state.args, import_module("vllm.envs"))
        self._scratch = pushes.prepare(Settings.from_environment().scratch)
        self._weights_max = pushes.weights_bytes_max(facts.shapes, facts.rank_max)

    @classmethod
    async def started(cls, state: Any, incarnation: str) -> "_Engine":
        """Check vLLM and take over its adapters. Raises NotSupported."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # I16
        start_checks.check_flags(state.args, import_module("vllm.envs"), state.vllm_config)
        start_checks.check_machine(Settings.from_environment())
        engine, models = state.engine_client, state.openai_serving_models
        start_checks.check_surface(engine, models)
        found = await engine.collective_rpc("tunewarden_facts", args=(os.getpid(),))
        facts = start_checks.facts_of(found, state.vllm_config)
        new_request = import_module("vllm.lora.request").LoRARequest
        adapters = Adapters(engine, models, new_request, slots=facts.slots)
        return cls(adapters, facts, state, incarnation)

    def close(self) -> None:
        """Remove the scratch directory."""
        self._watching.cancel()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def check_key(self, authorization: bytes) -> None:
        """Check the API key of a request. Raises Refused."""
        given = authorization.removeprefix(b"Bearer ")
        if self._keys and not any(hmac.compare_digest(given, key) for key in self._keys):
            raise Refused(401, "The API key is missing or wrong.")

    async def answer(self, scope: Scope, receive: Receive) -> msgspec.Struct:
        """Do one operation. Raises Refused, pushes.Gone."""
        method, path = scope["method"], scope["raw_path"].decode("ascii")
        match method, path:
            case "GET", paths.STATE:
                return self._state()
            case "POST", paths.BASES:
                return self._base(_decode(await _read(receive), NewBase).name)
            case "POST", paths.EVICTIONS:
                names = _decode(await _read(receive), EvictionRequest).names
                evicted = await asyncio.gather(*(self._adapters.evict(name) for name in names))
                return EvictionAnswer(VERSION, self._incarnation, evicted)
            case "POST", paths.LEASE:
                return await self._renewed(_decode(await _read(receive), Renewal))
            case "POST", _ if name := paths.name_in_abort_path(path):
                return AbortAnswer(name, await self._adapters.abort(name))
            case "PUT", _ if pushed := paths.pushed_in(path, scope["query_string"].decode("ascii")):
                return await self._load(*pushed, receive)
        raise Refused(
            404, f"Invalid URL ({method} {path}). Adapters are pushed to this engine with PUT."
        )

    async def _renewed(self, asked: Renewal) -> Renewed:
        if asked.begins:
            nonce = await self._leases.begin(asked.member, asked.seconds, asked.replaces)
        else:
            nonce = self._leases.renew(asked.member, asked.nonce)
        if nonce is None:
            raise Refused(500, "vLLM failed to overwrite an adapter.", Code.ENGINE_FAILED)
        return Renewed(VERSION, self._incarnation, nonce)

    async def _load(self, name: str, base: str, member: str, receive: Receive) -> LoadedAdapter:
        self._base(base)
        self._leases.held(member)
        loaded = LoadedAdapter(name, base, self._incarnation)
        if self._adapters.has(name):
            return loaded
        files = pushes.received(
            receive, self._scratch, rank_max=self._facts.rank_max, weights_max=self._weights_max
        )
        self._loading[name] = base
        try:
            async with files as directory:
                # Again, because the body may take long.
                await self._adapters.load(name, base, str(directory), self._leases.held(member))
        finally:
            self._loading.pop(name, None)
        return loaded

    def _state(self) -> State:
        bases = [self._base(name) for name in self._bases]
        tombstones = sorted(self._adapters.tombstones)
        return State(VERSION, os.getpid(), self._incarnation, bases, tombstones)

    def _base(self, name: str) -> LoadedBase:
        if name not in self._bases:
            served = ", ".join(self._bases)
            raise Refused(404, f"This vLLM serves {served}, not {name}.", Code.BASE_NOT_LOADED)
        facts = self._facts
        return LoadedBase(
            name=name,
            adapters=self._adapters.names(name),
            slots=facts.slots,
            context=facts.context,
            vocabulary=facts.vocabulary,
            modules=sorted(facts.shapes),
            running=len(self._running),
            shapes=facts.shapes,
            rank_max=facts.rank_max,
            loading=[one for one, of in self._loading.items() if of == name],
        )


async def _first(messages: list[Any], receive: Receive) -> Any:
    return messages.pop() if messages else await receive()


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise pushes.Gone
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise Refused(413, f"The body is larger than {BODY_BYTES_MAX} bytes.")
        if not message.get("more_body", False):
            return bytes(body)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return decoded(body, kind)
    except ValueError as error:
        raise Refused(400, "The request body does not match this operation.") from error


async def _answer_refusal(send: Send, refused: Refused) -> None:
    await _answer_bytes(send, refused.status, refused.body)


async def _answer_bytes(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

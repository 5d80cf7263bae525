"""Routes admitted requests to engines and limits how many are in flight."""

import asyncio
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import Refusal, decoded
from tunewarden.engines.port import Engine
from tunewarden.engines.request import Request
from tunewarden.engines.upstream import unavailable
from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.model_lookup import Target
from tunewarden.registry.replicas import Replica
from tunewarden.serving.admission import deleted

ANSWER_BYTES_MAX = 64 * 1024 * 1024
BUSY_SECONDS = 1
# Endpoints that engines may lack, and what to use instead.
NOT_EVERYWHERE = {"/responses": " Use v1/chat/completions.", "/embeddings": ""}

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Receives an engine's response."""

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The response has begun; `received` follows at once."""

    def received(self, piece: bytes, *, is_end: bool) -> None:
        """A part of the body was read."""

    def failed(self, error: Error) -> None:
        """There is no response, or it ended early. Nothing follows."""


class Gateway:
    """Routes requests by base and limits how many are in flight. One per worker, on its event loop."""

    def __init__(
        self,
        embedded: Engine,
        remote: Callable[[Base, Replica], Engine],
        *,
        per_engine_max: int,
        per_model_max: int,
    ) -> None:
        self._embedded = embedded
        self._new_remote = remote
        self._remotes: dict[int, Engine] = {}  # by the replica's number
        self._per_engine_max = per_engine_max
        self._per_model_max = per_model_max
        # Requests in flight, by engine and by model name.
        self._in_flight: dict[str | int, int] = {}

    def call(
        self, target: Target, asked_by: str, path: str, body: bytes, listener: Listener
    ) -> "Call":
        """Return a call, not begun yet; `asked_by` is the caller's organization.

        Raises Error(RATE_LIMITED) at the model's limit, Error(UNAVAILABLE) at the engine's.
        """
        in_flight = self._in_flight
        engine, model = _engine_key(target), target.public_id
        of_engine, of_model = in_flight.get(engine, 0), in_flight.get(model, 0)
        if of_model >= self._per_model_max:
            raise Error(
                Kind.RATE_LIMITED,
                f"Too many concurrent requests for model `{model}` (limit {self._per_model_max}). Please try again shortly.",
                code="model_busy",
                retry_after_seconds=BUSY_SECONDS,
            )
        if of_engine >= self._per_engine_max:
            raise Error(
                Kind.UNAVAILABLE,
                f"Too many concurrent requests for the engine of this model (limit {self._per_engine_max}). Please try again shortly.",
                code="engine_busy",
                retry_after_seconds=BUSY_SECONDS,
            )
        engine_of = self._engine_of(target)
        in_flight[engine] = of_engine + 1
        in_flight[model] = of_model + 1
        header = b""
        if engine_of is self._embedded:
            header = _asked_by(asked_by)
        return Call(self, engine_of, target, listener, path=path, body=body, header=header)

    def ended(self, target: Target) -> None:
        """Note that a call is no longer in flight."""
        in_flight = self._in_flight
        for name in (_engine_key(target), target.public_id):
            left = in_flight[name] - 1
            if left:
                in_flight[name] = left
            else:
                del in_flight[name]

    def _engine_of(self, target: Target) -> Engine:
        if target.base.kind is BaseKind.LOCAL:
            return self._embedded
        if not target.replicas:
            raise unavailable()
        replica = target.replicas[0]
        if replica.n not in self._remotes:
            self._remotes[replica.n] = self._new_remote(target.base, replica)
        return self._remotes[replica.n]


class Call(Request):
    """One inference request to an engine, inside its target's guard.

    A restarted engine has no adapters: then the model is loaded again and the request
    repeated once.
    """

    __slots__ = (
        "_body", "_engine", "_gateway", "_header", "_is_over", "_is_second", "_listener", "_path",
        "_refusal", "_target", "loading",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        engine: Engine,
        target: Target,
        listener: Listener,
        *,
        path: str,
        body: bytes,
        header: bytes,
    ) -> None:
        super().__init__()
        self._gateway = gateway
        self._engine = engine
        self._target = target
        self._path = path
        self._body = body
        self._header = header
        self._listener = listener
        self._refusal: bytearray | None = None
        self._is_second = False
        self._is_over = False
        # Set while the model is being loaded; its guard must be held until that ends.
        self.loading: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Load the model if necessary, then send the request."""
        if self._engine.has(self._target):
            self._engine.upstream.post(self._path, self._body, self, self._header)
            return
        self.loading = asyncio.get_running_loop().create_task(self._engine.load(self._target))
        self.loading.add_done_callback(self._loaded)

    def abort(self) -> None:
        """End it without a callback; `loading` may end later."""
        self._end()
        if self.loading is not None:
            self.loading.cancel()
        super().abort()

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Pass on a response; a 404 is examined first, and a 401 becomes an error of the server."""
        if status == 404:
            self._refusal = bytearray()
        elif status == 401:
            self._fail(_refused_us(self._target.base.name))
        elif b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            self._fail(_coded(self._target.base.name))
        else:
            self._listener.head_received(status, headers)

    def received(self, piece: bytes, *, is_end: bool) -> None:
        """Pass on a part of the body."""
        if self._refusal is None:
            if is_end:
                self._end()
            self._listener.received(piece, is_end=is_end)
            return
        self._refusal += piece
        if len(self._refusal) > ANSWER_BYTES_MAX:
            self._fail(unavailable())
        elif is_end:
            self._refused(_code_of(bytes(self._refusal)))

    def connection_failed(self) -> None:
        """Report that the engine's connection failed."""
        self._fail(unavailable())

    def _refused(self, code: str | None) -> None:
        self._refusal = None
        if code == Code.MODEL_DELETED:
            self._fail(deleted())
        elif code != Code.ADAPTER_NOT_LOADED:
            self._fail(_not_offered(self._path))
        elif self._is_second:
            # It has just started, and the runner has not loaded the base yet.
            self._fail(unavailable())
        else:
            self._is_second = True
            self._engine.unload(self._target)
            self.begin()

    def _loaded(self, loading: asyncio.Task[None]) -> None:
        self.loading = None
        error = None if loading.cancelled() else loading.exception()
        if self._is_over:
            return
        if isinstance(error, Error):
            self._fail(error)
        elif error is not None or loading.cancelled():
            logger.error("a model could not be loaded", exc_info=error)
            self._fail(unavailable())
        else:
            self._engine.upstream.post(self._path, self._body, self, self._header)

    def _fail(self, error: Error) -> None:
        self.abort()
        self._listener.failed(error)

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._gateway.ended(self._target)


def _engine_key(target: Target) -> str | int:
    return target.replicas[0].n if target.replicas else target.base.location


@lru_cache(maxsize=1024)
def _asked_by(organization: str) -> bytes:
    return b"%b: %b\r\n" % (paths.ASKED_BY, organization.encode())


def _refused_us(base: str) -> Error:
    logger.error(
        "the engine of the base %s refuses its API key: put the correct one into engine_keys/%s.key and restart",
        base,
        base,
    )
    return Error(
        Kind.ENGINE_FAILED,
        "The engine of this model rejected the server's own key. Your key is valid; contact the operator of this server.",
        code="engine_refused",
    )


def _not_offered(path: str) -> Error:
    message = f"The engine of this model does not support v1{path}, or does not have the model."
    if path in NOT_EVERYWHERE:
        message = f"This model is not supported in the v1{path} endpoint.{NOT_EVERYWHERE[path]}"
    return Error(Kind.NOT_FOUND, message, param="model", code="not_offered")


def _coded(base: str) -> Error:
    logger.error(
        "the engine of the base %s sends content-encoded responses although identity was requested",
        base,
    )
    return Error(
        Kind.ENGINE_FAILED,
        "The engine of this model sent a response with a Content-Encoding that was not requested.",
        code="engine_coded",
    )


def _code_of(body: bytes) -> str | None:
    try:
        return decoded(body, Refusal).error.code
    except ValueError:
        return None

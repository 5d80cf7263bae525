"""From an admitted target to the engine's answer."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.served import Target
from tunewarden.serving.admission import deleted
from tunewarden.serving.engine import Engine
from tunewarden.serving.upstream import Request, unavailable

ANSWER_BYTES_MAX = 64 * 1024 * 1024
NOT_LOADED = "adapter_not_loaded"
DELETED = "model_deleted"
BUSY_SECONDS = 1

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Who hears an engine's answer."""

    def begun(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Hear its status and headers; `heard` follows at once."""

    def heard(self, piece: bytes, *, is_end: bool) -> None:
        """Hear what came of its body in one read."""

    def failed(self, error: Error) -> None:
        """Hear that there is none, or that it broke off. Nothing follows."""


class Gateway:
    """Routes requests by their base, and bounds how many are under way. One a worker, on its event loop."""

    def __init__(
        self,
        embedded: Engine,
        remote: Callable[[Base], Engine],
        *,
        per_engine_max: int,
        per_model_max: int,
    ) -> None:
        self._embedded = embedded
        self._new_remote = remote
        self._remotes: dict[str, Engine] = {}
        self._per_engine_max = per_engine_max
        self._per_model_max = per_model_max
        # How many are under way, by the engine's location and by the model's name.
        self._under_way: dict[str, int] = {}

    def call(
        self, target: Target, asked_by: str, path: str, body: bytes, listener: Listener
    ) -> "Call":
        """Return the call of an engine, not begun yet; `asked_by` is the organization that asks.

        Raises Error(RATE_LIMITED) when the model, Error(UNAVAILABLE) when the engine has enough to do.
        """
        under_way = self._under_way
        engine, model = target.base.location, target.public_id
        of_engine, of_model = under_way.get(engine, 0), under_way.get(model, 0)
        if of_model >= self._per_model_max:
            raise Error(
                Kind.RATE_LIMITED,
                f"The model `{model}` has as many requests under way as it may have. Try again shortly.",
                code="model_busy",
                retry_after_seconds=BUSY_SECONDS,
            )
        if of_engine >= self._per_engine_max:
            raise Error(
                Kind.UNAVAILABLE,
                "The engine of this model has as many requests under way as it may have. Try again shortly.",
                code="engine_busy",
                retry_after_seconds=BUSY_SECONDS,
            )
        under_way[engine] = of_engine + 1
        under_way[model] = of_model + 1
        engine_of = self._engine_of(target.base)
        header = b""
        if target.n is None and engine_of is self._embedded:
            header = b"tunewarden-asked-by: %b\r\n" % asked_by.encode()
        return Call(self, engine_of, target, listener, path=path, body=body, header=header)

    def ended(self, target: Target) -> None:
        """Count a call that is under way no more."""
        for name in (target.base.location, target.public_id):
            left = self._under_way[name] - 1
            if left:
                self._under_way[name] = left
            else:
                del self._under_way[name]

    def _engine_of(self, base: Base) -> Engine:
        if base.kind is BaseKind.LOCAL:
            return self._embedded
        if base.name not in self._remotes:  # by its name: each base has a key of its own
            self._remotes[base.name] = self._new_remote(base)
        return self._remotes[base.name]


class Call(Request):
    """One inference request on its way to its engine and back; all of it inside its target's guard.

    An engine that was started anew has no adapters: then the model is loaded again and the request
    repeated, once.
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
        # While it is set the model is on its way to the engine, and its guard must be held.
        self.loading: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Send the request, after the engine has its model."""
        if self._engine.has(self._target):
            self._engine.upstream.post(self._path, self._body, self, self._header)
            return
        self.loading = asyncio.get_running_loop().create_task(self._engine.load(self._target))
        self.loading.add_done_callback(self._loaded)

    def abort(self) -> None:
        """End it without telling; `loading` may still take its time to end."""
        self._end()
        if self.loading is not None:
            self.loading.cancel()
        super().abort()

    def begun(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Pass on an answer; a 404 is looked at first, and a 401 is our matter, not the client's."""
        if status == 404:
            self._refusal = bytearray()
        elif status == 401:
            self._fail(_refused_us(self._target.base.name))
        else:
            self._listener.begun(status, headers)

    def heard(self, piece: bytes, *, is_end: bool) -> None:
        """Pass on a piece."""
        if self._refusal is None:
            if is_end:
                self._end()
            self._listener.heard(piece, is_end=is_end)
            return
        self._refusal += piece
        if len(self._refusal) > ANSWER_BYTES_MAX:
            self._fail(unavailable())
        elif is_end:
            self._refused(_code_of(bytes(self._refusal)))

    def broke(self) -> None:
        """Pass on that there is no engine."""
        self._fail(unavailable())

    def _refused(self, code: str | None) -> None:
        self._refusal = None
        if code == DELETED:
            self._fail(deleted())
        elif code != NOT_LOADED:
            self._fail(
                Error(
                    Kind.NOT_FOUND,
                    f"The engine of this model does not offer {self._path}, or does not know the model.",
                    code="not_offered",
                )
            )
        elif self._is_second:
            # It has just been started, and the runner has not loaded the base yet.
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


def _refused_us(base: str) -> Error:
    logger.error(
        "the engine of the base %s refuses its API key: put the right one into engine_keys/%s.key and start anew",
        base,
        base,
    )
    return Error(
        Kind.ENGINE_FAILED,
        "The engine of this model refuses the server's own key. Your key is fine: tell whoever runs the server.",
        code="engine_refused",
    )


class _Problem(msgspec.Struct):
    code: str | None = None


class _Refused(msgspec.Struct):
    error: _Problem


def _code_of(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Refused).error.code
    except msgspec.DecodeError:
        return None

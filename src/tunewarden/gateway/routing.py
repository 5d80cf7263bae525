"""Routes admitted requests to engines and limits how many are in flight."""

import asyncio
import logging
from functools import lru_cache
from typing import Protocol

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import Refusal, decoded
from tunewarden.engines.port import Engine
from tunewarden.engines.request import Request
from tunewarden.engines.upstream import UNAVAILABLE, unavailable
from tunewarden.errors import Error, Kind
from tunewarden.gateway.fleet import (
    BUSY_SECONDS,
    Fleet,
    Link,
    Load,
    Loads,
    NewEngine,
    Pace,
    engine_busy,
)
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.model_lookup import Target
from tunewarden.serving.admission import deleted

ANSWER_BYTES_MAX = 64 * 1024 * 1024
PACE = Pace()
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
        remote: NewEngine,
        *,
        per_engine_max: int,
        per_model_max: int,
        pace: Pace = PACE,
    ) -> None:
        self._embedded = embedded
        self._new_remote = remote
        self._local: dict[str, Link] = {}  # by the base's location
        self._fleets: dict[str, Fleet] = {}  # by the base's name
        self._loads = Loads()
        self._per_engine_max = per_engine_max
        self._per_model_max = per_model_max
        self._pace = pace
        # Requests in flight, by model name.
        self._in_flight: dict[str, int] = {}

    def call(
        self, target: Target, asked_by: str, path: str, body: bytes, listener: Listener
    ) -> "Call":
        """Return a call, not begun yet; `asked_by` is the caller's organization.

        Raises Error(RATE_LIMITED) at the model's limit, Error(UNAVAILABLE) at the engine's.
        """
        in_flight = self._in_flight
        model = target.public_id
        of_model = in_flight.get(model, 0)
        if of_model >= self._per_model_max:
            raise Error(
                Kind.RATE_LIMITED,
                f"Too many concurrent requests for model `{model}` (limit {self._per_model_max}). Please try again shortly.",
                code="model_busy",
                retry_after_seconds=BUSY_SECONDS,
            )
        header = b""
        if target.base.kind is BaseKind.LOCAL:
            link = self._local_link(target.base)
            header = _asked_by(asked_by)
        else:
            link = self._fleet_of(target.base).choose(target)
        in_flight[model] = of_model + 1
        return Call(self, link, target, listener, path=path, body=body, header=header)

    def other_than(self, link: Link, target: Target) -> Link | None:
        """Return another replica for a request that failed on one; None if there is none."""
        if target.base.kind is BaseKind.LOCAL:
            return None
        try:
            return self._fleet_of(target.base).choose(target, other_than=link)
        except Error:
            return None

    def in_flight(self) -> int:
        """Return how many calls have not ended."""
        return sum(self._in_flight.values())

    def ended(self, target: Target) -> None:
        """Note that a call is no longer in flight."""
        left = self._in_flight[target.public_id] - 1
        if left:
            self._in_flight[target.public_id] = left
        else:
            del self._in_flight[target.public_id]

    def _local_link(self, base: Base) -> Link:
        link = self._local.get(base.location)
        if link is None:
            link = self._local[base.location] = Link(self._embedded, Load())
        if link.load.in_flight >= self._per_engine_max:
            raise engine_busy(self._per_engine_max)
        return link

    def _fleet_of(self, base: Base) -> Fleet:
        fleet = self._fleets.get(base.name)
        if fleet is None:
            fleet = self._fleets[base.name] = Fleet(
                base,
                self._new_remote,
                self._loads,
                per_engine_max=self._per_engine_max,
                pace=self._pace,
            )
        return fleet


class Call(Request):
    """One inference request to an engine, inside its target's guard.

    A restarted engine has no adapters: then the model is loaded again and the request
    repeated once. A replica that fails before any byte of a response: then the request is sent to another one, once.
    """

    __slots__ = (
        "_body", "_gateway", "_has_moved", "_header", "_is_answered", "_is_over", "_is_second", "_link", "_listener",
        "_path", "_refusal", "_target", "loading",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        link: Link,
        target: Target,
        listener: Listener,
        *,
        path: str,
        body: bytes,
        header: bytes,
    ) -> None:
        super().__init__()
        link.load.in_flight += 1
        self._gateway = gateway
        self._link = link
        self._target = target
        self._path = path
        self._body = body
        self._header = header
        self._listener = listener
        self._refusal: bytearray | None = None
        self._is_second = False
        self._has_moved = False
        self._is_answered = False
        self._is_over = False
        # Set while the model is being loaded; its guard must be held until that ends.
        self.loading: asyncio.Task[None] | None = None

    def add_header(self, line: bytes) -> None:
        """Add a header line to the engine's request."""
        self._header += line

    def begin(self) -> None:
        """Load the model if necessary, then send the request."""
        link = self._link
        if link.watched_by is not None:
            link.watched_by.watch(link, self)
        if link.engine.has(self._target):
            link.engine.upstream.post(self._path, self._body, self, self._header)
            return
        self.loading = asyncio.get_running_loop().create_task(link.engine.load(self._target))
        self.loading.add_done_callback(self._loaded)

    def abort(self) -> None:
        """End it without a callback; `loading` may end later."""
        self._end()
        if self.loading is not None:
            self.loading.cancel()
        super().abort()

    def give_up(self) -> None:
        """Go to another replica: this one answers nothing. A load is ended first."""
        self._link.waiting.pop(self, None)
        if self.loading is not None:
            self.loading.cancel()
        else:
            self._move_on(unavailable())

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Pass on a response; a 404 is examined first, and a 401 becomes an error of the server."""
        if self._link.waiting:
            self._link.waiting.pop(self, None)
        if status == 404:
            self._refusal = bytearray()
        elif status == 401:
            self._note_failure()
            self._move_on(_refused_us(self._target.base.name))
        elif b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            self._fail(_coded(self._target.base.name))
        else:
            self._is_answered = True
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
        """Go to another replica, or report that the engine's connection failed."""
        self._note_failure()
        self._move_on(unavailable())

    def _refused(self, code: str | None) -> None:
        self._refusal = None
        if code == Code.MODEL_DELETED:
            if self._target.replicas:
                # Had it been deleted, nothing would run on it: the replica is being removed.
                self._move_on(unavailable())
            else:
                self._fail(deleted())
        elif code != Code.ADAPTER_NOT_LOADED:
            self._fail(_not_offered(self._path))
        elif self._is_second:
            # It has just started, and the runner has not loaded the base yet.
            self._move_on(unavailable())
        else:
            self._is_second = True
            self._link.engine.unload(self._target)
            self.begin()

    def _loaded(self, loading: asyncio.Task[None]) -> None:
        self.loading = None
        error = None if loading.cancelled() else loading.exception()
        if self._is_over:
            return
        if loading.cancelled():
            self._move_on(unavailable())
        elif isinstance(error, Error):
            if error.code == UNAVAILABLE:
                self._note_failure()
            if error.kind is Kind.UNAVAILABLE:
                self._move_on(error)
            else:
                self._fail(error)
        elif error is not None:
            logger.error("a model could not be loaded", exc_info=error)
            self._fail(unavailable())
        else:
            self._link.engine.upstream.post(self._path, self._body, self, self._header)

    def _note_failure(self) -> None:
        if self._link.watched_by is not None:
            self._link.watched_by.failed(self._link)

    def _move_on(self, error: Error) -> None:
        """Send the request to another replica, once and if nothing of a response was passed on; else fail."""
        if self._is_over:
            return
        other = None
        if not self._has_moved and not self._is_answered:
            other = self._gateway.other_than(self._link, self._target)
        if other is None:
            self._fail(error)
            return
        super().abort()
        self._leave()
        self._link = other
        other.load.in_flight += 1
        self._has_moved = True
        self._is_second = False
        self._refusal = None
        self.begin()

    def _fail(self, error: Error) -> None:
        self.abort()
        self._listener.failed(error)

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._leave()
            self._gateway.ended(self._target)

    def _leave(self) -> None:
        link = self._link
        link.load.in_flight -= 1
        if link.waiting:
            link.waiting.pop(self, None)


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

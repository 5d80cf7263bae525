"""One inference request, from its head to the last byte of its response. Without ASGI or a task, for speed.

Each request is admitted under the guard; the model's state is read again before each part of a response is written
(I2). Its states: `stages.py`; how it ends: `exchange_ending.py`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunewarden.engines.upstream import unavailable
from tunewarden.errors import Error
from tunewarden.gateway import tracing
from tunewarden.gateway.connection import ClientConnection
from tunewarden.gateway.cycle import NoEvent
from tunewarden.gateway.exchange_ending import Ending
from tunewarden.gateway.incoming import Incoming
from tunewarden.gateway.inference import ROUTES, Inference, too_slow
from tunewarden.gateway.inference_request import InferenceRequest
from tunewarden.gateway.long_bodies import LONG_BYTES
from tunewarden.gateway.relay import Relay
from tunewarden.gateway.rewriting import renaming
from tunewarden.gateway.stages import ENGINE, OVER, PARSING, READY, RECEIVING, RESPONDING
from tunewarden.identity.key_format import Presented
from tunewarden.ids import mint_request

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

logger = logging.getLogger(__name__)


class Exchange(Ending):
    """One inference request and its response. All of it runs on the event loop of its worker.

    `on_over` is called when the connection is free for the next request.

    It takes the place of uvicorn's RequestResponseCycle, so four attributes have its names. The protocol sets
    `keep_alive` and `disconnected`; every other field is this object's own.
    """

    __slots__ = ("_is_chunked", "disconnected", "expects_continue")
    message_event = NoEvent()

    def __init__(
        self,
        shared: Inference,
        client: ClientConnection,
        path: str,
        presented: Presented | Error,
        *,
        body: bytes | None = None,
        announced: int = 0,
        keep_alive: bool,
        expects_continue: bool,
        is_chunked: bool,
        default_head: bytes,
        on_over: Callable[[], object],
        span: "Span | None" = None,
    ) -> None:
        """`body` if it is complete; else `add` and `complete` follow."""
        self._shared = shared
        self._client = client
        self._incoming = Incoming(shared, path, presented, body, announced, span=span)
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self._is_chunked = is_chunked  # else closing the connection ends the stream
        self._default_head = default_head
        self._on_over = on_over
        self._loop = client.loop
        self._began = self._last_received = self._loop.time()
        self.stage = RECEIVING if body is None else READY
        self._call = None
        self._relay = None
        self._serving = None
        self._failure = None
        self._reserved = None
        self._status = 0
        self.disconnected = False
        self.request_id = mint_request()

    @property
    def response_complete(self) -> bool:
        """Whether nothing more is written; uvicorn reads it."""
        return self.stage is OVER

    # From the client:

    def add(self, piece: bytes) -> None:
        """Add a part of the body."""
        self._incoming.add(piece)

    def complete(self) -> None:
        """Note that the body is complete."""
        if self.stage is RECEIVING:
            self.stage = READY

    def advance(self) -> None:
        """Advance as far as possible; called when it is this request's turn, and as its body arrives.

        What goes wrong is answered: first a missing or bad key, before the body is read.
        """
        if self.stage is not READY and self.stage is not RECEIVING:
            return
        try:
            self._incoming.check()
            if self.stage is READY:
                self._begin()
            else:
                self._incoming.authenticate()
                if self.expects_continue:
                    self.expects_continue = False
                    self._client.write(CONTINUE)
        except Error as error:
            # Without its frames: they hold this exchange, which may hold the error.
            self.refuse(error.with_traceback(None))
        except Exception as error:
            logger.exception("request %s failed", self.request_id)
            self.refuse(error)

    def end_if_slow(self) -> None:
        """End with 408: the body arrives too slowly."""
        if self.stage is RECEIVING:
            self.refuse(too_slow())

    def pause(self) -> None:
        """Stop reading from the engine: the client is slow (back-pressure)."""
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        """Read from the engine again."""
        self._last_received = self._loop.time()
        if self._call is not None:
            self._call.resume()

    # From the engine (`routing.Listener`):

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Note the status and headers; they are written with the first part of the body."""
        names = renaming(self._target.engine_model, self._target.public_id)
        hides = not self._request.wants_usage
        self._relay = Relay(
            names,
            status,
            headers,
            is_chunked=self._is_chunked,
            hides_usage=hides,
            events=self._route.events,
        )

    def received(self, piece: bytes, *, is_end: bool) -> None:
        """Forward a part of the body, if the model may still be used."""
        self._last_received = self._loop.time()
        response = self._relay
        assert response is not None, "`head_received` comes first"
        try:
            output = response.feed(piece, is_end=is_end)
        except ConnectionError:
            self._abort_call()
            self.failed(unavailable())
            return
        if output is None:
            return
        if (output or is_end) and not self._may_go_on():
            self._end_aborted()
            return
        if self.stage is ENGINE:
            self.stage = RESPONDING
            response.first_at = self._last_received
            output = self._head(response.status, response.lines) + output
        if output:
            self._client.write(output)
        if is_end:
            tokens = response.tokens
            if tokens is not None and response.status == 200:
                caller = self._incoming.caller
                assert caller is not None, "only admitted requests are counted"
                self._shared.usage.add(caller, self._target, self._route.counted_as, tokens)
            self._written()

    def _begin(self) -> None:
        """Parse the request, admit it and send it to its engine."""
        body = self._incoming.take_body()
        if len(body) > LONG_BYTES:
            caller = self._incoming.authenticate()
            reading = self._shared.long_bodies.read(caller.organization_id, body)
            self.stage = PARSING
            reading.add_done_callback(self._long_body_is_read)
            return
        try:
            request = InferenceRequest.parse(body)
        except Error:
            self._incoming.authenticate()
            raise
        self._admit(request)

    def _long_body_is_read(self, reading: "asyncio.Future[InferenceRequest]") -> None:
        error = reading.exception()
        if self.stage is not PARSING:
            return
        try:
            if error is not None:
                raise error if isinstance(error, Error) else unavailable()
            self._admit(reading.result())
        except Error as refusal:
            self.refuse(refusal)

    def _admit(self, request: InferenceRequest) -> None:
        self._request = request
        incoming = self._incoming
        assert isinstance(incoming.presented, Presented), "else it is refused earlier"
        reading, serving = self._shared.admissions.admit(
            request.model, incoming.presented, incoming.identify, self._revoked, request.draw
        )
        self._serving = serving
        self.stage = ENGINE
        caller = incoming.caller = reading.caller
        target = self._target = incoming.target = reading.target
        if serving.n is not None:
            self._client.guard()
        metered = reading.metered
        if metered is not None:
            reserved = self._shared.rate_limiter.take(metered, request, self._loop.time())
            self._default_head += metered.lines
            if isinstance(reserved, Error):
                self._refuse_in(
                    self._shared.rate_limiter.pause(metered, self._loop.time()), reserved
                )
                return
            self._reserved = reserved
        route = self._route = ROUTES[incoming.path]
        asks, forbids = route.asks_usage, route.stores
        sent = request.for_engine(target.engine_model, ask_usage=asks, forbids_store=forbids)
        call = self._shared.gateway.call(target, caller.organization_id, route.path, sent, self)
        if incoming.span is not None:
            call.add_header(tracing.header(incoming.span))
        self._call = call
        self._last_received = self._loop.time()
        call.begin()

    def _refuse_in(self, seconds: float, error: Error) -> None:
        """Refuse after a pause; whatever ends the exchange before ends it as ever."""
        if seconds:
            self._loop.call_later(seconds, self._refuse_if_waiting, error)
        else:
            self.refuse(error)

    def _refuse_if_waiting(self, error: Error) -> None:
        if self.stage is ENGINE:
            self.refuse(error)

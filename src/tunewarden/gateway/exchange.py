"""One inference request, from its head to the last byte of its response. Without ASGI or a task, for speed.

Each request is admitted under the guard; the model's state is read again before each part of a response is written
(I2). An aborted request ends with an error, and the model's buffered output is discarded. Its states: `stages.py`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunewarden import problems
from tunewarden.engines.upstream import unavailable
from tunewarden.errors import Error
from tunewarden.gateway import relay, tracing
from tunewarden.gateway.connection import ClientConnection
from tunewarden.gateway.cycle import NoEvent
from tunewarden.gateway.incoming import Incoming
from tunewarden.gateway.inference import ROUTES, Inference, engine_silent, shutting_down, too_slow
from tunewarden.gateway.long_bodies import LONG_BYTES
from tunewarden.gateway.observer import DISCONNECTED
from tunewarden.gateway.relay import Relay
from tunewarden.gateway.rewriting import InferenceRequest, renaming
from tunewarden.gateway.routing import Call
from tunewarden.gateway.stages import Stage
from tunewarden.identity.key_format import Presented
from tunewarden.ids import mint_request
from tunewarden.serving.admission import ACK_SECONDS, Serving

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# By name: a look-up in the enum's class takes longer than the rest of a comparison.
RECEIVING, READY, PARSING, ENGINE, RESPONDING, WRITTEN, ABORTED, OVER = Stage

logger = logging.getLogger(__name__)


class Exchange:
    """One inference request and its response. All of it runs on the event loop of its worker.

    `on_over` is called when the connection is free for the next request.

    It takes the place of uvicorn's RequestResponseCycle, so four attributes have its names. The protocol sets
    `keep_alive` and `disconnected`; every other field is this object's own.
    """

    __slots__ = (
        "_began", "_call", "_client", "_default_head", "_failure", "_incoming", "_is_chunked", "_last_received", "_loop",
        "_on_over", "_relay", "_request", "_serving", "_shared", "_status", "_target", "disconnected", "expects_continue",
        "keep_alive", "request_id", "stage",
    )  # fmt: skip
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
        self._call: Call | None = None
        self._relay: Relay | None = None
        self._serving: Serving | None = None
        self._failure: Exception | None = None  # None: the engine's response is complete
        self._status = 0  # of our own response, not the engine's
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

    def lost(self) -> None:
        """End because the client disconnected; its connection is closed next."""
        if self.stage is OVER:
            return
        if self._failure is None and self.stage is not WRITTEN:
            self._failure = DISCONNECTED
        self.stage = OVER
        self._abort_call()
        self._tell_observer()
        serving = self._serving
        if serving is not None and serving.n is not None:
            # Closing discards unsent bytes in the kernel; the guard is held until then.
            self._loop.call_soon(self._release)
        else:
            self._release()

    def refuse(self, error: Exception) -> None:
        """Answer with an error, if nothing was written."""
        if self.stage in {RECEIVING, READY, PARSING, ENGINE}:
            self._failure = error
            self._abort_call()
            # The client may or may not send the rest of the body. RFC 9110 §10.1.1
            self.keep_alive &= self.stage is not RECEIVING
            status, headers, body = problems.wire(error)
            self._status = status
            self._client.write(self._head(status, problems.lines(headers)) + body)
            self._over()

    def end_if_overdue(self, now: float, seconds: float) -> None:
        """End if the engine has been silent for too long while the client was reading."""
        if (
            self.stage in {ENGINE, RESPONDING}
            and self._serving is not None
            and now - self._last_received > seconds
            and not self._client.has_unsent()
        ):
            self._abort_call()
            self.failed(engine_silent(seconds))

    def end_for_shutdown(self) -> None:
        """End because the server shuts down: a stream with an error event, anything else with a 503."""
        self.keep_alive = False
        if self.stage in {RECEIVING, READY, PARSING}:
            self.refuse(shutting_down())
        elif self.stage in {ENGINE, RESPONDING}:
            self._abort_call()
            self.failed(shutting_down())

    # From the engine (`routing.Listener`):

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Note the status and headers; they are written with the first part of the body."""
        names = renaming(self._target.engine_model, self._target.public_id)
        hides = not self._request.wants_usage
        chunked, own = self._is_chunked, ROUTES[self._incoming.path].is_responses
        self._relay = Relay(
            names, status, headers, is_chunked=chunked, hides_usage=hides, is_responses=own
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
            caller = self._incoming.caller
            assert caller is not None, "only admitted requests are counted"
            self._shared.usage.add(caller.organization_id, self._target.public_id, *response.tokens)
            self._written()

    def failed(self, error: Error) -> None:
        """End because the engine failed: with an error, or an SSE error event if the response has begun."""
        if not self._may_go_on():
            self._end_aborted()
        elif self.stage is RESPONDING:
            self._failure = error
            self._client.write(self._error_events(error))
            self._written()
        else:
            self.refuse(error)

    # How it ends:

    def _revoked(self) -> None:
        """End because the model was deleted or the key revoked; called by `Admissions`."""
        if self.stage is not OVER:
            self._end_aborted()

    def _end_aborted(self) -> None:
        """End with an error if one can be sent, else by closing the connection (D4)."""
        self._abort_call()
        if self.stage is ENGINE:
            self.refuse(self._reason())
        elif self._client.has_unsent():
            # The model's output is still buffered for a slow client: discard everything.
            self._failure = self._reason()
            self._client.drop()
        elif self.stage is not ABORTED:
            is_whole = self.stage is WRITTEN
            self._failure = None if is_whole else self._reason()
            self.stage = ABORTED
            until = self._loop.time() + ACK_SECONDS
            self._client.flushes.wait(
                lambda: self._client.has_flushed() or self._loop.time() >= until,
                lambda: self._end_acknowledged(is_whole=is_whole),
            )

    def _end_acknowledged(self, *, is_whole: bool) -> None:
        """End when all sent bytes are acknowledged; after the timeout reset the connection, to stop retransmission."""
        if self.stage is OVER:
            return
        if not self._client.has_flushed():
            self._client.drop()
            return
        if not is_whole:
            self._client.write(self._error_events(self._reason()))
        self._over()

    def _error_events(self, error: Error) -> bytes:
        assert self._relay is not None, "the response has begun"
        return self._relay.error_events(error)

    def _reason(self) -> Error:
        serving = self._serving
        assert serving is not None and serving.ended_by is not None, "admitted, aborted"  # noqa: PT018  one fact
        return serving.ended_by

    def _written(self) -> None:
        """End when the kernel has accepted all output; the model's guard is held until it is acknowledged (I2)."""
        if self.stage is ABORTED or self.stage is OVER:
            return
        self.stage = WRITTEN
        assert self._serving is not None, "only admitted requests are written"
        if self._serving.n is not None:
            is_kept, client = self.keep_alive, self._client
            if client.is_backed_up if is_kept else client.has_unsent():
                is_done = client.has_room if is_kept else client.has_flushed
                client.flushes.wait(is_done, self._written)
                return
            if is_kept:
                self._shared.admissions.leave(self._serving, client)
                self._serving = self._call = None
        self._over()

    def _over(self) -> None:
        self.stage = OVER
        self._tell_observer()
        if self._serving is not None and self._serving.n is not None:
            self._client.mark()
        self._release()
        self._on_over()

    def _tell_observer(self) -> None:
        failure = self._failure
        times = self._began, self._last_received if failure is None else self._loop.time()
        self._shared.observer.ended(
            self.request_id, self._incoming, self._client, self._relay, self._status, failure, times
        )

    def _abort_call(self) -> None:
        if self._call is not None:
            self._call.abort()

    def _release(self) -> None:
        """Release the guard as soon as no output of the model is in flight."""
        serving, self._serving = self._serving, None
        if serving is None:
            return
        loading = self._call.loading if self._call is not None else None
        self._call = None  # break the reference cycle: else both wait for the garbage collector
        if loading is None:
            self._shared.admissions.end(serving)
        else:
            loading.add_done_callback(lambda _: self._shared.admissions.end(serving))

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
            request.model, incoming.presented, incoming.identify, self._revoked
        )
        self._serving = serving
        self.stage = ENGINE
        caller = incoming.caller = reading.caller
        target = self._target = incoming.target = reading.target
        if serving.n is not None:
            self._client.guard()
        path, asks, forbids = ROUTES[incoming.path]
        sent = request.for_engine(target.engine_model, ask_usage=asks, forbids_store=forbids)
        call = self._shared.gateway.call(target, caller.organization_id, path, sent, self)
        if incoming.span is not None:
            call.add_header(tracing.header(incoming.span))
        self._call = call
        self._last_received = self._loop.time()
        call.begin()

    def _may_go_on(self) -> bool:
        assert self._serving is not None, "only admitted requests are answered"
        return self._shared.admissions.may_go_on(self._serving)

    def _head(self, status: int, lines: bytes) -> bytes:
        name = None if (caller := self._incoming.caller) is None else caller.organization_name
        took = (self._loop.time() - self._began) * 1000
        default, kept, number = self._default_head, self.keep_alive, self.request_id
        return relay.head(status, lines, default, number, name, elapsed_ms=took, is_kept=kept)

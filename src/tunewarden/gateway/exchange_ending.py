"""How an exchange ends: its response was sent, it failed or was aborted, or the client disconnected.

An aborted one ends with an error, and the model's buffered output is discarded. The model's guard is held until no
output of the model is in flight (I2). The states: `stages.py`.
"""

import asyncio
from collections.abc import Callable

from tunewarden import problems
from tunewarden.errors import Error
from tunewarden.gateway import relay
from tunewarden.gateway.connection import ClientConnection
from tunewarden.gateway.incoming import Incoming
from tunewarden.gateway.inference import Inference, Route, engine_silent, shutting_down
from tunewarden.gateway.inference_request import InferenceRequest
from tunewarden.gateway.observer import DISCONNECTED, NO_TOKENS
from tunewarden.gateway.rate_limiting import Reserved
from tunewarden.gateway.relay import Relay
from tunewarden.gateway.routing import Call
from tunewarden.gateway.stages import (
    ABORTED,
    ENGINE,
    OVER,
    PARSING,
    READY,
    RECEIVING,
    RESPONDING,
    WRITTEN,
    Stage,
)
from tunewarden.registry.model_lookup import Target
from tunewarden.serving.admission import ACK_SECONDS, Serving


class Ending:
    """What every end of an exchange needs; `Exchange`, its only subclass, sets all of it.

    It is a base class and no field, because this is the hot path: a call through a field costs each request.
    """

    __slots__ = (
        "_began", "_call", "_client", "_default_head", "_failure", "_incoming", "_last_received", "_loop", "_on_over",
        "_relay", "_request", "_reserved", "_route", "_serving", "_shared", "_status", "_target", "keep_alive", "request_id",
        "stage",
    )  # fmt: skip

    _shared: Inference
    _client: ClientConnection
    _incoming: Incoming
    _default_head: bytes
    _on_over: Callable[[], object]
    _loop: asyncio.AbstractEventLoop
    _began: float
    _last_received: float
    _call: Call | None
    _relay: Relay | None
    _request: InferenceRequest  # once it is parsed
    _reserved: Reserved | None  # from the rate limits
    _route: Route  # once it is admitted
    _target: Target  # once it is admitted
    _serving: Serving | None
    _failure: Exception | None  # None: the engine's response is complete
    _status: int  # of our own response, not the engine's
    keep_alive: bool
    request_id: str
    stage: Stage

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
        if failure is not None:
            self._count_unfinished()
        times = self._began, self._last_received if failure is None else self._loop.time()
        self._shared.observer.ended(
            self.request_id, self._incoming, self._client, self._relay, self._status, failure, times
        )
        if self._reserved is not None:
            self._settle(self._reserved)

    def _settle(self, reserved: Reserved) -> None:
        """Settle the tokens: what is not known to be unused was used."""
        response, limiter, now = self._relay, self._shared.rate_limiter, self._loop.time()
        if response is None:
            # Not sent, or the engine failed; if the client left, the engine may have begun.
            if self._failure is not DISCONNECTED:
                limiter.settle(reserved, NO_TOKENS, now)
        elif response.status != 200:
            limiter.settle(reserved, NO_TOKENS, now)
        else:
            used = response.tokens if self._failure is None else response.tokens_so_far()
            if used is not None and used[0]:
                limiter.settle(reserved, used, now)
            else:
                limiter.settle_untold(reserved, self._request, response.tokens_so_far()[1], now)

    def _count_unfinished(self) -> None:
        """Count what a stream has cost that was aborted before its end."""
        response = self._relay
        if response is None or not response.first_at or response.tokens is not None:
            return
        if response.is_stream and response.status == 200:
            caller = self._incoming.caller
            assert caller is not None, "only admitted requests have a response"
            tokens = response.tokens_so_far()
            self._shared.usage.add(caller, self._target, self._route.counted_as, tokens)

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

    def _may_go_on(self) -> bool:
        assert self._serving is not None, "only admitted requests are answered"
        return self._shared.admissions.may_go_on(self._serving)

    def _head(self, status: int, lines: bytes) -> bytes:
        name = None if (caller := self._incoming.caller) is None else caller.organization_name
        took = (self._loop.time() - self._began) * 1000
        default, kept, number = self._default_head, self.keep_alive, self.request_id
        return relay.head(status, lines, default, number, name, elapsed_ms=took, is_kept=kept)

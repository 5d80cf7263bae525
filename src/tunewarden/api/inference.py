"""The inference routes: no ASGI and no task, because here every microsecond counts.

Admission under the guard is on every request; the model's state is read again before each chunk
leaves (I2). A request that is cut ends with an error, and nothing of the model's output that still
waits in our buffers leaves.
"""

from collections.abc import Callable
from enum import Enum, auto

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tunewarden.api import problems
from tunewarden.api.client import FLUSH_POLL_SECONDS, Client
from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.keys import Presented
from tunewarden.identity.policy import Caller
from tunewarden.ids import mint_request
from tunewarden.registry.usage import UsageCounter
from tunewarden.serving import admission
from tunewarden.serving.admission import Admissions, Serving
from tunewarden.serving.gateway import ANSWER_BYTES_MAX, Call, Gateway
from tunewarden.serving.rewriting import (
    InferenceRequest,
    Renaming,
    StreamRewriter,
    renaming,
    usage_of,
)
from tunewarden.serving.upstream import unavailable

# Path -> whether its streams carry usage only if asked (`stream_options`).
ROUTES = {
    "/v1/chat/completions": True,
    "/v1/completions": True,
    "/v1/embeddings": False,
    "/v1/responses": False,
}
OPENAI_VERSION = b"2020-10-01"
PASSED_ON = (b"retry-after", b"x-should-retry")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
END = b"0\r\n\r\n"


class _Stage(Enum):
    """How far an exchange has come."""

    BODY = auto()  # its body comes, or it waits for its turn
    ENGINE = auto()  # nothing was written yet
    ANSWER = auto()  # its head was
    WRITTEN = auto()  # all was, and the last of it may wait for a slow client
    OVER = auto()


class Inference:
    """What all exchanges of a worker share."""

    def __init__(
        self, admissions: Admissions, gateway: Gateway, usage: UsageCounter, body_bytes_max: int
    ) -> None:
        self.admissions = admissions
        self.gateway = gateway
        self.usage = usage
        self.body_bytes_max = body_bytes_max


class _NoEvent:
    def set(self) -> None:
        """Do nothing: an exchange is told otherwise."""


class Exchange:
    """One inference request from its head to the last byte of its answer.

    What goes wrong before anything was written is raised by `advance`, whose caller answers it by `refuse`;
    later on it ends the answer here. `on_over` is called when the connection is free for the next one.

    To uvicorn it stands where a RequestResponseCycle would: four fields are named as there.
    """

    __slots__ = (
        "_began", "_body", "_call", "_client", "_default_head", "_head", "_heard_at", "_loop", "_on_over",
        "_path", "_presented", "_request", "_rewriter", "_serving", "_shared", "_size", "_stage", "_status",
        "_target", "caller", "disconnected", "expects_continue", "has_body", "keep_alive", "request_id",
        "response_complete",
    )  # fmt: skip
    message_event = _NoEvent()

    def __init__(
        self,
        shared: Inference,
        client: Client,
        path: str,
        presented: Presented | Error,
        *,
        keep_alive: bool,
        expects_continue: bool,
        default_head: bytes,
        on_over: Callable[[], object],
    ) -> None:
        self._shared = shared
        self._client = client
        self._path = path
        self._presented = presented
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self._default_head = default_head
        self._on_over = on_over
        self._loop = client.loop
        self._began = self._heard_at = self._loop.time()
        self._stage = _Stage.BODY
        # Of the request, and then of the answer.
        self._body: list[bytes] = []
        self._size = 0
        self._call: Call | None = None
        self._serving: Serving | None = None
        self._rewriter: StreamRewriter | None = None
        self._head = b""
        self.caller: Caller | None = None
        self.has_body = False
        self.disconnected = False
        self.response_complete = False
        self.request_id = mint_request()

    # From the client:

    def add(self, piece: bytes) -> None:
        """Take a piece of the body; beyond the bound nothing is kept."""
        self._size += len(piece)
        if self._size <= self._shared.body_bytes_max:
            self._body.append(piece)

    def advance(self) -> None:
        """Do what can be done by now; called when it is this request's turn, and as its body comes.

        Raises Error. Whoever has no key is told that first, and before its body is read.
        """
        if self._stage is not _Stage.BODY:
            return
        if isinstance(self._presented, Error):
            raise self._presented
        if self._size > self._shared.body_bytes_max:
            self._authenticate()
            most = self._shared.body_bytes_max
            raise Error(Kind.TOO_LARGE, f"The body of a request may have {most} bytes.")
        if self.has_body:
            self._begin()
        else:
            self._authenticate()
            if self.expects_continue:
                self.expects_continue = False
                self._client.write(CONTINUE)

    def end_if_slow(self) -> None:
        """End because the body does not come."""
        if self._stage is _Stage.BODY:
            self.keep_alive = False
            self.refuse(too_slow())

    def pause(self) -> None:
        """Let the engine wait: the client is slow."""
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        """Let the engine go on."""
        self._heard_at = self._loop.time()
        if self._call is not None:
            self._call.resume()

    def lost(self) -> None:
        """End because the client went away; its connection is closed next."""
        if self._stage is _Stage.OVER:
            return
        self._stage = _Stage.OVER
        self.response_complete = True
        self._abort()
        if self._serving is not None and self._serving.n is not None:
            # What waits in the kernel is dropped then, and the guard held until it is.
            self._loop.call_soon(self._release)
        else:
            self._release()

    def refuse(self, error: Error) -> None:
        """Answer with an error, if nothing was written."""
        headers = problems.headers_of(error).items()
        lines = b"".join([f"{name}: {value}\r\n".encode() for name, value in headers])
        self.answer(problems.status_of(error), problems.body_of(error), lines)

    def answer(self, status: int, body: bytes, lines: bytes = b"") -> None:
        """Answer with a body of our own, if nothing was written."""
        if self._stage in {_Stage.BODY, _Stage.ENGINE}:
            self._abort()
            length = b"content-length: %d\r\n" % len(body)
            head = self._headed(status, b"content-type: application/json\r\n" + length + lines)
            self._client.write(head + body)
            self._over()

    def end_if_overdue(self, now: float, seconds: float) -> None:
        """End if the engine has been silent for too long, while its client was not slow itself."""
        if (
            self._stage in {_Stage.ENGINE, _Stage.ANSWER}
            and now - self._heard_at > seconds
            and not self._client.has_unsent()
        ):
            self._abort()
            said = f"The engine of this model has been silent for {seconds:g} s."
            self.failed(Error(Kind.UNAVAILABLE, said, code="engine_timeout"))

    # From the engine (`gateway.Listener`):

    def begun(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Take the answer's head; it is written with the first piece."""
        kind = headers.get(b"content-type", b"application/json")
        lines = b"content-type: %b\r\n" % kind
        if kind.startswith(b"text/event-stream"):
            hides_usage = not self._request.wants_usage
            self._rewriter = StreamRewriter(self._renaming(), hides_usage=hides_usage)
            lines += b"cache-control: no-store\r\ntransfer-encoding: chunked\r\n"
            self._head = self._headed(status, lines)
            return
        for name in PASSED_ON:
            if name in headers:
                lines += b"%b: %b\r\n" % (name, headers[name])
        self._head, self._status = lines, status

    def heard(self, piece: bytes, *, is_end: bool) -> None:
        """Take what came of the body in one read."""
        self._heard_at = self._loop.time()
        if self._rewriter is None:
            self._heard_of_whole(piece, is_end=is_end)
            return
        try:
            events = self._rewriter.feed(piece)
            if is_end:
                events += self._rewriter.rest()
        except ConnectionError:
            self._abort()
            self.failed(unavailable())
            return
        if events and not self._may_go_on():
            self._end_cut()
            return
        data = self._head + _chunk(events)
        self._head = b""
        self._stage = _Stage.ANSWER
        if is_end:
            self._client.write(data + END)
            self._count(self._rewriter.usage.counted)
            self._written()
        elif data:
            self._client.write(data)

    def failed(self, error: Error) -> None:
        """Take that there is no answer, or only a part of one."""
        if not self._may_go_on():
            self._end_cut()
        elif self._stage is _Stage.ANSWER:
            self._client.write(_last_event(error))
            self._written()
        else:
            self.refuse(error)

    def _heard_of_whole(self, piece: bytes, *, is_end: bool) -> None:
        if self._body or not is_end:
            self._body.append(piece)
            self._size += len(piece)
            if self._size > ANSWER_BYTES_MAX:
                self._abort()
                self.failed(unavailable())
                return
            if not is_end:
                return
            piece = b"".join(self._body)
        if not self._may_go_on():
            self._end_cut()
            return
        body = self._renaming().apply(piece)
        lines = b"%bcontent-length: %d\r\n" % (self._head, len(body))
        self._stage = _Stage.ANSWER
        counted = usage_of(piece).counted
        self._client.write(self._headed(self._status, lines) + body)
        self._count(counted)
        self._written()

    # The ways in which it ends:

    def _cut(self) -> None:
        """End because the model was deleted; called by whoever watches."""
        if self._stage is not _Stage.OVER:
            self._end_cut()

    def _end_cut(self) -> None:
        """End with an error if one can be sent, else by closing the connection."""
        self._abort()
        if self._stage is _Stage.ENGINE:
            self.refuse(admission.deleted())
        elif self._client.has_unsent():
            # Output of the model waits in the buffer: it must not leave, so nothing does.
            self._client.drop()
        else:
            if self._stage is _Stage.ANSWER:
                self._client.write(_last_event(admission.deleted()))
            self._over()

    def _written(self) -> None:
        """End when the kernel has all that was written; the model's guard is held until it has left (I2)."""
        if self._stage is _Stage.OVER:
            return
        self._stage = _Stage.WRITTEN
        assert self._serving is not None, "only what was admitted is written"
        if self._serving.n is not None:
            is_kept, client = self.keep_alive, self._client
            if client.is_backed_up if is_kept else client.has_unsent():
                self._loop.call_later(FLUSH_POLL_SECONDS, self._written)
                return
            if is_kept:
                self._shared.admissions.leave(self._serving, client)
                self._serving = self._call = None
        self._over()

    def _over(self) -> None:
        self._stage = _Stage.OVER
        self.response_complete = True
        if self._serving is not None and self._serving.n is not None:
            self._client.mark()
        self._release()
        self._on_over()

    def _abort(self) -> None:
        if self._call is not None:
            self._call.abort()

    def _release(self) -> None:
        """Let go of the guard, as soon as nothing of the model is on its way any more."""
        serving, self._serving = self._serving, None
        if serving is None:
            return
        loading = self._call.loading if self._call is not None else None
        self._call = None  # which knows us: two that know each other wait for the collector
        if loading is None:
            self._shared.admissions.end(serving)
        else:
            loading.add_done_callback(lambda _: self._shared.admissions.end(serving))

    # Parts:

    def _begin(self) -> None:
        """Admit the request and send it to its engine."""
        self._stage = _Stage.ENGINE
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._size = 0
        try:
            request = self._request = InferenceRequest.parse(body)
        except Error:
            self._authenticate()
            raise
        assert isinstance(self._presented, Presented), "a request without a key is refused before"
        reading, self._serving = self._shared.admissions.admit(
            request.model, self._presented, self._identify, self._cut
        )
        self.caller, self._target = reading.caller, reading.target
        if self._serving.n is not None:
            self._client.guard()
        sent = request.for_engine(self._target.engine_model, ask_usage=ROUTES[self._path])
        route = self._path.removeprefix("/v1")
        asked_by = reading.caller.organization_id
        self._call = self._shared.gateway.call(self._target, asked_by, route, sent, self)
        self._heard_at = self._loop.time()
        self._call.begin()

    def _authenticate(self) -> None:
        """Read who asks, where nothing else is read with it."""
        if self.caller is None:
            self._shared.admissions.identify(self._identify)

    def _identify(self, tx: Tx) -> Caller:
        assert isinstance(self._presented, Presented), "a request without a key is refused before"
        # Who it is is kept for the key's next requests, so it names no request.
        self.caller = keys.holder(tx, self._presented, "")
        return self.caller

    def _may_go_on(self) -> bool:
        assert self._serving is not None, "only what was admitted is answered"
        return self._shared.admissions.may_go_on(self._serving)

    def _renaming(self) -> Renaming:
        return renaming(self._target.engine_model, self._target.public_id)

    def _count(self, tokens: tuple[int, int]) -> None:
        assert self.caller is not None, "only what was admitted is counted"
        self._shared.usage.add(self.caller.organization_id, self._target.public_id, *tokens)

    def _headed(self, status: int, lines: bytes) -> bytes:
        """Return an answer's head: `lines` and what every answer carries."""
        elapsed_ms = (self._loop.time() - self._began) * 1000
        who = b""
        if self.caller is not None:
            who = b"openai-organization: %b\r\n" % self.caller.organization_name.encode()
        return (
            b"%b%b%bx-request-id: %b\r\nopenai-version: %b\r\nopenai-processing-ms: %d\r\n"
            b"x-content-type-options: nosniff\r\n%b%b\r\n"
        ) % (
            STATUS_LINE[status],
            self._default_head,
            lines,
            self.request_id.encode(),
            OPENAI_VERSION,
            elapsed_ms,
            who,
            b"" if self.keep_alive else b"connection: close\r\n",
        )


def too_slow() -> Error:
    """Return the error for a request that does not come in time."""
    return Error(Kind.TOO_SLOW, "The request did not come in time.", code="request_timeout")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _last_event(error: Error) -> bytes:
    return _chunk(b"data: " + problems.body_of(error) + b"\n\n") + END

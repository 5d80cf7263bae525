"""uvicorn's HTTP protocol, with a short cut for the inference routes, and with bounds.

A request on one of `inference.ROUTES` becomes an `Exchange`, which runs in the callbacks of the sockets; to
uvicorn it stands where a RequestResponseCycle would, so that pipelining, keep-alive and shutdown stay
uvicorn's. Everything else becomes an ASGI task.
"""

import asyncio
from enum import Enum, auto
from typing import TYPE_CHECKING, ClassVar, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tunewarden.api import heads, problems
from tunewarden.api.client import EXTENSION, FLUSH_POLL_SECONDS, Client
from tunewarden.api.heads import Head
from tunewarden.api.inference import ROUTES, Exchange, too_slow
from tunewarden.errors import Error
from tunewarden.identity.keys import Presented
from tunewarden.ids import Prefix, mint

if TYPE_CHECKING:
    from tunewarden.api.server import Server

HEAD_BYTES_MAX = 64 * 1024  # OpenAI asks its clients for less than 64 KiB
# A body that comes in drips is not waited for much longer than one that does not come.
BODY_RATE_MIN = 500  # bytes a second
DRIPS_MAX = 4  # times as long as a client may be silent
PATHS = {path.encode(): path for path in ROUTES}


class Waiting(Enum):
    """What a connection waits for from its client."""

    REQUEST = auto()  # the next one, or the first
    HEAD = auto()  # the rest of one
    BODY = auto()  # the rest of one
    NOTHING = auto()  # the answer is up to us


class ClientProtocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools on uvicorn."""

    # uvicorn's headers for every answer, which it renews each second, and their lines.
    default_lines: ClassVar[tuple[object, bytes]] = (None, b"")

    cycle: RequestResponseCycle | Exchange | None  # type: ignore[assignment]
    peer: Client
    server_application: "Server"
    head_bytes = 0
    waiting = Waiting.REQUEST
    since = 0.0
    # Since when a body comes, but for the time in which we did not read, and how much came.
    body_since = 0.0
    body_bytes = 0
    # The exchange whose turn it is.
    exchange: Exchange | None = None
    # The last head that came, and what came with its first bytes.
    head: Head | None = None
    first_bytes = b""

    # What the event loop calls:

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the client, or refuse one too many."""
        super().connection_made(transport)
        self.server_application = cast("Server", self.config.app)
        self.peer = Client(transport, self.loop)
        self.since = self.loop.time()
        try:
            self.server_application.clients.add(self)
        except Error as error:
            self._close_with(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is running."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.lost()
        super().connection_lost(exc)
        self.server_application.clients.discard(self)
        self.peer.lost()

    def data_received(self, data: bytes) -> None:
        """Parse, and note that the client is not slow."""
        if self.waiting is Waiting.REQUEST:
            if self.head is not None and self._is_free():
                body = self.head.written.body_of(data)
                if body is not None:
                    self._repeat(self.head, body)
                    return
            self.waiting = Waiting.HEAD
            self.since = self.loop.time()
            self.first_bytes = data
        elif self.waiting is Waiting.BODY:
            self.since = self.loop.time()
        super().data_received(data)
        if self.waiting is Waiting.BODY:
            self._advance()

    def pause_writing(self) -> None:
        """Let the engine wait for a slow client."""
        super().pause_writing()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """Let the engine go on."""
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.resume()

    # What the parser calls:

    def on_message_begin(self) -> None:
        """Begin; what uvicorn prepares for ASGI is left until it is known to be needed."""
        self.head = None
        self.url = b""
        self.headers = []
        self.head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Collect."""
        self.url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect."""
        self.headers.append((name.lower(), value))
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Choose the way."""
        self.waiting = Waiting.BODY
        self.since = self.body_since = self.loop.time()
        self.body_bytes = 0
        # Of the first request in a read only: what follows it does not begin there.
        first_bytes, self.first_bytes = self.first_bytes, b""
        path = PATHS.get(self.url) or PATHS.get(httptools.parse_url(self.url).path)
        if path is None or self.parser.get_method() != b"POST":
            self._begin_asgi()
        else:
            self._begin_exchange(path, first_bytes)

    def on_body(self, body: bytes) -> None:
        """Pass on."""
        self.body_bytes += len(body)
        if not isinstance(self.cycle, Exchange):
            super().on_body(body)
        elif not self.cycle.response_complete:
            self.cycle.add(body)

    def on_message_complete(self) -> None:
        """Pass on."""
        cycle = self.cycle
        assert cycle is not None, "its head was complete"
        self.waiting = Waiting.REQUEST if cycle.response_complete else Waiting.NOTHING
        if not isinstance(cycle, Exchange):
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.has_body = True
            if cycle is self.exchange:
                self._advance()

    # What uvicorn calls:

    def _start_asgi_task(
        self, cycle: RequestResponseCycle | Exchange, app: ASGI3Application
    ) -> None:
        if isinstance(cycle, Exchange):
            self.exchange = cycle
            # Not at once: a thousand that are refused in one read would be a thousand frames deep.
            self.loop.call_soon(self._advance)
        else:
            super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        """End in order: an answer that a slow client has not read yet is not lost."""
        if self._is_free() and not self.peer.may_close():
            self.loop.call_later(FLUSH_POLL_SECONDS, self.shutdown)
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """Turn to the next request. Who keeps an idle connection for too long, `clients` sees."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.waiting is Waiting.NOTHING:
            self.waiting = Waiting.REQUEST
            self.since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    # What `clients` calls, each second:

    def end_if_overdue(self, now: float, *, client_seconds: float, engine_seconds: float) -> None:
        """End what takes too long: a client that sends slowly, an engine that does not answer."""
        waited = now - self.since
        if self.waiting is Waiting.REQUEST:
            if waited > self.timeout_keep_alive and self.peer.may_close():
                self.transport.close()
        elif self.waiting is not Waiting.NOTHING and (
            waited > client_seconds or self._comes_in_drips(now, client_seconds)
        ):
            self._end_slow()
        if self.exchange is not None:
            self.exchange.end_if_overdue(now, engine_seconds)

    def _comes_in_drips(self, now: float, client_seconds: float) -> bool:
        if self.waiting is not Waiting.BODY:
            return False
        if self.flow.read_paused:
            self.body_since, self.body_bytes = now, 0
        took = now - self.body_since
        return took > client_seconds * DRIPS_MAX + self.body_bytes / BODY_RATE_MIN

    def _end_slow(self) -> None:
        if self.waiting is Waiting.HEAD and self._is_free():
            self._close_with(too_slow())
        elif self.exchange is not None:
            self.exchange.end_if_slow()
        elif not self.flow.read_paused:  # else it is the application that does not read
            self.transport.close()

    # Parts:

    def _count(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > HEAD_BYTES_MAX:
            self.transport.abort()

    def _begin_asgi(self) -> None:
        self.peer.may_close()  # Only what is still leaving counts from here on.
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.scope["extensions"] = {EXTENSION: self.peer}  # type: ignore[dict-item]
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def _begin_exchange(self, path: str, first_bytes: bytes) -> None:
        headers = dict(self.headers)
        presented: Presented | Error
        try:
            presented = self.server_application.presented(self.headers)
        except Error as error:
            presented = error
        is_kept = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        exchange = self._exchange(
            path, presented, keep_alive=is_kept, expects_continue=expects_continue
        )
        is_first = self._is_free()
        self.cycle = exchange
        if is_first:
            self.exchange = exchange
            if is_kept and isinstance(presented, Presented):
                self.head = heads.learn(first_bytes, self.headers, path, presented)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

    def _repeat(self, head: Head, body: bytes) -> None:
        """Begin an exchange whose head is known, in all but its length, and whose body is here."""
        exchange = self._exchange(
            head.path, head.presented, keep_alive=True, expects_continue=False
        )
        self.waiting = Waiting.NOTHING
        self.cycle = self.exchange = exchange
        exchange.add(body)
        exchange.has_body = True
        self._advance()

    def _exchange(
        self, path: str, presented: Presented | Error, *, keep_alive: bool, expects_continue: bool
    ) -> Exchange:
        return Exchange(
            self.server_application.inference,
            self.peer,
            path,
            presented,
            keep_alive=keep_alive,
            expects_continue=expects_continue,
            default_head=self._default_head(),
            on_over=self._exchange_is_over,
        )

    def _is_free(self) -> bool:
        """Tell whether no answer is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _advance(self) -> None:
        if self.exchange is not None:
            self.server_application.advance(self.exchange)

    def _exchange_is_over(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None and not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _default_head(self) -> bytes:
        headers = self.server_state.default_headers
        if self.default_lines[0] is not headers:
            lines = b"".join([b"%b: %b\r\n" % header for header in headers])
            ClientProtocol.default_lines = headers, lines
        return self.default_lines[1]

    def _close_with(self, error: Error) -> None:
        """Answer with an error that belongs to no request, and close."""
        body = problems.body_of(error)
        lines = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": mint(Prefix.REQUEST),
            **problems.headers_of(error),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        status = problems.status_of(error)
        self.peer.write(f"HTTP/1.1 {status} -\r\n{head}\r\n".encode() + body)
        self.transport.close()

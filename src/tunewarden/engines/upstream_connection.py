"""One keep-alive HTTP/1.1 connection to an engine, parsed by httptools; at most one request is in flight on it.

Its states, and what each event does (empty: it cannot happen then):

    event               FRESH      IDLE       FIRST      REUSED     HEAD       BODY       WHOLE      LAST       CLOSING
    `carry`             -> FIRST   -> REUSED
    the first bytes                           -> HEAD    -> HEAD
    a known response,                                    -> WHOLE
     whole in one read
    its head is whole                                               -> BODY
    its body is                                                                -> WHOLE,
                                                                               LAST
    a second response                                                                     -> LAST
     in the same read
    it was passed on                                                                      -> IDLE    -> CLOSING
    `close`             -> CLOSING -> CLOSING
    `abort`, or bytes   -> CLOSING -> CLOSING -> CLOSING -> CLOSING -> CLOSING -> CLOSING -> CLOSING -> CLOSING
     out of turn
    `connection_lost`   -> CLOSED  -> CLOSED  -> CLOSED  -> CLOSED  -> CLOSED  -> CLOSED                        -> CLOSED

What `connection_lost` does to the request: one that was sent on a REUSED connection is sent once more; a BODY without a
stated length is complete; any other request fails.

Fields: `request` is set by `carry`, and to None by `Request.abort`; every other field is this object's own. All of it runs
on the event loop of the worker.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, cast

import httptools

from tunewarden import sockets
from tunewarden.engines import head_cache
from tunewarden.engines.head_cache import Repeated
from tunewarden.engines.request import Request

HEADERS_BYTES_MAX = 64 * 1024
LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class State(Enum):
    """The state of a connection to an engine."""

    FRESH = auto()  # open; nothing was sent on it yet
    IDLE = auto()  # open; all responses were read
    FIRST = auto()  # its first request was sent; nothing came back
    REUSED = auto()  # a later request was sent; nothing came back
    HEAD = auto()  # part of the head was received
    BODY = auto()  # the head was received, and part of the body is missing
    WHOLE = auto()  # the response is complete; the next request may follow
    LAST = auto()  # the response is complete; the connection will be closed
    CLOSING = auto()  # closed by us
    CLOSED = auto()


# Module-level names, compared by identity: a look-up in the enum's class, or in a set, takes longer than the rest of
# the work on a piece of a stream.
FRESH, IDLE, FIRST, REUSED, HEAD, BODY, WHOLE, LAST, CLOSING, CLOSED = State


class Pool(Protocol):
    """The pool of a connection: `Upstream`."""

    def give_back(self, connection: "UpstreamConnection") -> None:
        """Return a connection to the pool after its response."""

    def lost(self, connection: "UpstreamConnection") -> None:
        """Forget a connection."""

    def open_for(self, request: Request) -> None:
        """Send a request on a new connection."""


@dataclass(frozen=True, slots=True)
class _Head:
    """A parsed response head. Its Content-Length is that of the first response."""

    written: Repeated
    status: int
    headers: dict[bytes, bytes]


class UpstreamConnection(asyncio.Protocol):
    """One connection of a pool."""

    def __init__(self, pool: Pool) -> None:
        self.state = FRESH
        self.request: Request | None = None
        self.process = 0  # pid of the peer; 0: unknown (another host)
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._is_paused = False  # reading is paused for a slow client, in any state
        self._known: _Head | None = None
        self._forget()

    def _forget(self) -> None:
        """Reset for the next response."""
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._lengths = 0  # number of Content-Length headers
        self._pieces: list[bytes] = []

    def carry(self, request: Request) -> None:
        """Send a request."""
        self.state = FIRST if self.state is FRESH else REUSED
        self.request = request
        request.connection = self
        if self._descriptor is None:
            self._transport.write(request.data)
        else:
            sockets.write(self._transport, self._descriptor, request.data)

    def pause(self) -> None:
        """Pause reading."""
        if not self._is_paused and self.state is not CLOSED:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Resume reading."""
        if self._is_paused and self.state is not CLOSED:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; the engine sees a disconnect."""
        if self.state is not CLOSED:
            self.state = CLOSING
            self._transport.abort()

    def close(self) -> None:
        """Close gracefully."""
        self.state = CLOSING
        self._transport.close()

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent on it, as far as is known."""
        return (self.state is IDLE or self.state is FRESH) and not self._transport.is_closing()

    # What the event loop calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        is_tls = transport.get_extra_info("sslcontext") is not None
        self._descriptor = None if is_tls else sockets.descriptor_of(transport)
        self.process = sockets.process_behind(transport)

    def data_received(self, data: bytes) -> None:
        """Parse and pass on; unexpected bytes close the connection."""
        request, before = self.request, self.state
        if request is None:
            self.abort()
            return
        if before is FIRST or before is REUSED:
            body = None if self._known is None else self._known.written.body_of(data)
            if body is not None:
                self._repeat(request, body)
                return
            self.state = HEAD
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()
            return
        if before is not BODY:
            state = self.state
            if state is not BODY and state is not WHOLE and state is not LAST:
                return
            if before is not HEAD and state is not BODY:
                self._learn(data)
            request.head_received(self._status, self._headers)
        self._pass_on(request)

    def _learn(self, data: bytes) -> None:
        """Cache the head of a response that came in one read; the next one's is often equal."""
        self._known = None
        is_plain = b"transfer-encoding" not in self._headers and self._lengths == 1
        if self.state is WHOLE and is_plain:
            written = head_cache.learn(data)
            if written is not None:
                self._known = _Head(written, self._status, self._headers)

    def _repeat(self, request: Request, body: bytes) -> None:
        """Pass on a response that came in one read, with the cached head."""
        head = self._known
        assert head is not None, "the caller has compared with it"
        self.state = WHOLE
        request.head_received(head.status, head.headers)
        if self.state is WHOLE:
            self._end(request)
            request.received(body, is_end=True)

    def _pass_on(self, request: Request) -> None:
        """Pass on the received part of the body, unless the request was aborted."""
        state = self.state
        if state is BODY or state is WHOLE or state is LAST:
            pieces = self._pieces
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            is_end = state is not BODY
            if is_end:
                self._end(request)
            request.received(piece, is_end=is_end)

    def _end(self, request: Request) -> None:
        """Return the connection to the pool before the end is reported: that callback may send again."""
        self.request = request.connection = None
        self._forget()
        self.resume()
        if self.state is WHOLE:
            self.state = IDLE
            self._pool.give_back(self)
        else:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request in flight."""
        before, self.state = self.state, CLOSED
        self._pool.lost(self)
        request, self.request = self.request, None
        if request is None:
            return
        request.connection = None
        if before is REUSED and request.closed_by is None:
            # A kept-alive connection closed before any response: most likely an idle timeout that raced with the request.
            request.closed_by = self.process
            self._pool.open_for(request)
        elif exc is None and before is BODY and not self._headers.keys() & LENGTH_HEADERS:
            request.received(b"", is_end=True)  # the body ends with the connection (RFC 9112 §6.3)
        else:
            request.connection_failed()

    # What the parser calls:

    def on_message_begin(self) -> None:
        """Detect a second response in the same read."""
        if self.state is WHOLE:
            self.state = LAST

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, within the limits."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADERS_BYTES_MAX:
            self.abort()
        if self.state is not WHOLE and self.state is not LAST:
            name = name.lower()
            self._headers[name] = value
            self._lengths += name == b"content-length"

    def on_headers_complete(self) -> None:
        """Note the status; skip informational responses."""
        status = self._parser.get_status_code()
        if not 100 <= status < 600:
            self.abort()  # no status at all (RFC 9110, 15)
        elif status < 200:
            self._headers.clear()
        elif self.state is HEAD:
            self._status = status
            self.state = BODY

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        if self.state is BODY:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Note the end of the response."""
        if self.state is BODY:
            self.state = WHOLE if self._parser.should_keep_alive() else LAST

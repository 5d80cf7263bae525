"""Keep-alive HTTP/1.1 connections to one engine: ours, because deletion must be able to close them.

One protocol object a connection, parsed by httptools. Answers are told by callbacks, in the turn in which
they come: no task and no future between an engine's socket and a client's. Closing a connection is the
last resort that aborts a request on any engine.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import cast

import httptools

from tunewarden.errors import Error, Kind
from tunewarden.serving import repeated, sockets
from tunewarden.serving.address import Address
from tunewarden.serving.repeated import Repeated

CONNECT_SECONDS = 5
IDLE_MAX = 256
HEADERS_BYTES_MAX = 64 * 1024
LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class Request:
    """One request to an engine. Whoever sends it extends this, to hear its answer."""

    __slots__ = ("connection", "data", "is_waiting")

    def __init__(self) -> None:
        self.data = b""  # as it is sent, head and body
        self.connection: Connection | None = None
        self.is_waiting = False  # for a connection that is being opened

    def begun(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Hear the answer's status and headers; `heard` follows at once."""
        raise NotImplementedError

    def heard(self, piece: bytes, *, is_end: bool) -> None:
        """Hear what came of the body in one read; at the end the connection is free again."""
        raise NotImplementedError

    def broke(self) -> None:
        """Hear that no engine could be reached, or that it broke off."""
        raise NotImplementedError

    def abort(self) -> None:
        """Hear nothing more; the engine sees its client gone."""
        self.is_waiting = False
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.request = None
            connection.abort()

    def pause(self) -> None:
        """Let the engine wait: whoever reads the answer is slow."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """Let the engine go on."""
        if self.connection is not None:
            self.connection.resume()


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of an answer that was parsed. Its content-length is that of the first one."""

    written: Repeated
    status: int
    headers: dict[bytes, bytes]


class Connection(asyncio.Protocol):
    """One connection; at most one request is under way on it."""

    def __init__(self, upstream: "Upstream") -> None:
        self.request: Request | None = None
        self.is_lost = False
        self._upstream = upstream
        self._parser = httptools.HttpResponseParser(self)
        self._is_paused = False
        self._is_fresh = True
        self._known: _Head | None = None
        self._forget()

    def _forget(self) -> None:
        """Be ready for the next answer."""
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._lengths = 0  # how often it states its length
        self._pieces: list[bytes] = []
        self._is_silent = True  # nothing has come
        self._is_told = False  # its head was
        self._is_complete = False

    def carry(self, request: Request) -> None:
        """Send a request."""
        self.request = request
        request.connection = self
        if self._descriptor is None:
            self._transport.write(request.data)
        else:
            sockets.write(self._transport, self._descriptor, request.data)

    def pause(self) -> None:
        """Read no more for now."""
        if not self._is_paused and not self.is_lost:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._is_paused and not self.is_lost:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; the engine sees its client gone."""
        self._transport.abort()

    def close(self) -> None:
        """Close in order."""
        self._transport.close()

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent on it, as far as is known."""
        return not self.is_lost and not self._transport.is_closing()

    # What the event loop calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        is_tls = transport.get_extra_info("sslcontext") is not None
        self._descriptor = None if is_tls else sockets.descriptor_of(transport)

    def data_received(self, data: bytes) -> None:
        """Parse, then tell; bytes that nobody asked for make the connection unfit."""
        request = self.request
        if request is None:
            self.abort()
            return
        is_first, self._is_silent = self._is_silent, False
        if is_first and self._known is not None:
            body = self._known.written.body_of(data)
            if body is not None:
                self._repeat(request, self._known, body)
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()
            return
        if self._status:
            if is_first and self._is_complete:
                self._learn(data)
            self._tell(request)

    def _learn(self, data: bytes) -> None:
        """Keep the head of an answer that came in one read; the next one's is often equal."""
        self._known = None
        if self._is_kept and b"transfer-encoding" not in self._headers and self._lengths == 1:
            written = repeated.learn(data)
            if written is not None:
                self._known = _Head(written, self._status, self._headers)

    def _repeat(self, request: Request, head: "_Head", body: bytes) -> None:
        """Tell an answer that came in one read, and whose head is known."""
        request.begun(head.status, head.headers)
        if self.request is request:
            self._is_kept = True
            self._end(request)
            request.heard(body, is_end=True)

    def _tell(self, request: Request) -> None:
        if not self._is_told:
            self._is_told = True
            request.begun(self._status, self._headers)
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self.request is not request:
            return  # It was aborted.
        is_end = self._is_complete
        if is_end:
            self._end(request)
        request.heard(piece, is_end=is_end)

    def _end(self, request: Request) -> None:
        """Be free before the end is told: whoever hears it may ask again."""
        self.request = request.connection = None
        keep = self._is_kept
        self._forget()
        self._is_fresh = False
        self.resume()
        self._upstream.give_back(self, keep=keep)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self.is_lost = True
        self._upstream.lost(self)
        request, self.request = self.request, None
        if request is None:
            return
        request.connection = None
        if self._is_silent and not self._is_fresh:
            # It was kept, and closed before anything came: what was sent met nobody.
            self._upstream.send(request)
        elif exc is None and self._is_told and not self._headers.keys() & LENGTH_HEADERS:
            request.heard(b"", is_end=True)  # its length is where it ends (RFC 9112 §6.3)
        else:
            request.broke()

    # What the parser calls:

    def on_message_begin(self) -> None:
        """Notice an answer behind the answer."""
        if self._is_complete:
            self._is_kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, bounded."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADERS_BYTES_MAX:
            self.abort()
        if not self._is_complete:
            name = name.lower()
            self._headers[name] = value
            self._lengths += name == b"content-length"

    def on_headers_complete(self) -> None:
        """Note the status; an informational answer is not the answer."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers.clear()
        elif status >= 600:
            self.abort()  # no status at all (RFC 9110, 15)
        elif not self._is_complete:
            self._status = status

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        if not self._is_complete:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Note the answer's end."""
        if self._status and not self._is_complete:
            self._is_complete = True
            self._is_kept = self._parser.should_keep_alive()


class Upstream:
    """The connections to one address. Not for use from several event loops.

    `key` is the API key that the engine asks of us.
    """

    def __init__(self, address: Address, key: str | None = None) -> None:
        self._address = address
        self._idle: list[Connection] = []
        self._tls = ssl.create_default_context() if address.tls else None
        self._fixed = f"host: {address.authority}\r\ncontent-type: application/json\r\n"
        if key is not None:
            self._fixed += f"authorization: Bearer {key}\r\n"
        self._heads: dict[str, bytes] = {}
        self._opening: set[asyncio.Task[None]] = set()

    def post(self, path: str, body: bytes, request: Request, header: bytes = b"") -> None:
        """Send a POST, with one more header line or none; `request` hears of it.

        Sent a second time only if a kept connection turned out to be closed before anything came
        back.
        """
        head = self._heads.get(path)
        if head is None:
            # One for each route that we offer: no client can make them many.
            head = self._heads[path] = (
                f"POST {self._address.prefix}{path} HTTP/1.1\r\n{self._fixed}content-length: "
            ).encode("latin-1")
        request.data = b"%b%d\r\n%b\r\n%b" % (head, len(body), header, body)
        self.send(request)

    def send(self, request: Request) -> None:
        """Send what a request holds."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.carry(request)
                return
        request.is_waiting = True
        opening = asyncio.get_running_loop().create_task(self._open(request))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def ask(self, path: str, body: bytes, bytes_max: int) -> tuple[int, bytes]:
        """Send a POST and return the answer's status and body. Raises ConnectionError."""
        asked = _Asked(bytes_max)
        self.post(path, body, asked)
        try:
            return await asked.answer
        finally:
            asked.abort()

    def give_back(self, connection: Connection, *, keep: bool) -> None:
        """Keep a connection whose answer has ended for the next request, or close it."""
        if keep and len(self._idle) < IDLE_MAX and connection.is_open:
            self._idle.append(connection)
        else:
            connection.close()

    def lost(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().abort()

    async def _open(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        address = self._address
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if address.socket is not None:
                    _, connection = await loop.create_unix_connection(self._new, address.socket)
                else:
                    _, connection = await loop.create_connection(
                        self._new, address.host, address.port, ssl=self._tls
                    )
        except (OSError, TimeoutError):
            if request.is_waiting:
                request.broke()
            return
        if request.is_waiting:
            request.is_waiting = False
            connection.carry(request)
        else:
            self.give_back(connection, keep=True)

    def _new(self) -> Connection:
        return Connection(self)


class _Asked(Request):
    """A request whose whole answer is waited for."""

    __slots__ = ("_bytes_max", "_pieces", "_size", "_status", "answer")

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._bytes_max = bytes_max
        self._status = 0
        self._pieces: list[bytes] = []
        self._size = 0

    def begun(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Note the status."""
        self._status = status

    def heard(self, piece: bytes, *, is_end: bool) -> None:
        """Collect."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._bytes_max:
            self.abort()
            self.broke()
        elif is_end and not self.answer.done():
            self.answer.set_result((self._status, b"".join(self._pieces)))

    def broke(self) -> None:
        """Tell whoever waits."""
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError("the engine broke off"))


def unavailable() -> Error:
    """Return the error for an engine that cannot be reached or broke off."""
    return Error(
        Kind.UNAVAILABLE,
        "The engine of this model is not available right now. Try again shortly.",
        code="engine_unavailable",
        retry_after_seconds=1,
    )

"""Keep-alive HTTP/1.1 connections to one engine: ours, because deletion must be able to close them.

One protocol object a connection, parsed by httptools; no task and no library between the gateway
and the socket. Closing a connection is the last resort that aborts a request on any engine.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from tunewarden.errors import Error, Kind

CONNECT_SECONDS = 5
IDLE_MAX = 64
PAUSE_BYTES = 256 * 1024
HEADERS_BYTES_MAX = 64 * 1024
LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens: a unix socket, or a host and port with a path prefix."""

    socket: str | None = None
    host: str = "engine"
    port: int = 80
    tls: bool = False
    prefix: str = "/v1"

    @classmethod
    def of_url(cls, url: str) -> "Address":
        """Return the address for a base URL such as `http://127.0.0.1:8000/v1`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # a port that is no number, a bracket without its other half
            parts, port = urlsplit(""), None
        if (
            parts.scheme not in {"http", "https"}
            or not parts.hostname
            or parts.query
            or parts.username
        ):
            raise Error(
                Kind.INVALID,
                "An engine's URL looks like http://127.0.0.1:8000/v1, without user, password or query.",
                param="engine_url",
            )
        tls = parts.scheme == "https"
        port = port or (443 if tls else 80)
        return cls(host=parts.hostname, port=port, tls=tls, prefix=parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """Return what stands in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Connection(asyncio.Protocol):
    """One connection; at most one request is under way on it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.is_lost = False
        self.answer: Answer | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        """Parse; bytes that nobody asked for make the connection unfit."""
        if self.answer is None:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self.is_lost = True
        if self.answer is not None:
            self.answer.closed(in_order=exc is None)

    def abort(self) -> None:
        """Close at once; the engine sees its client gone."""
        if self.transport is not None:
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        if self.answer is not None:
            self.answer.add_header(name.lower(), value)

    def on_headers_complete(self) -> None:
        """The status and headers are there."""
        if self.answer is not None:
            self.answer.begin(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        """A piece of the body is there."""
        if self.answer is not None:
            self.answer.add(body)

    def on_message_complete(self) -> None:
        """The answer has ended; the connection may serve another request."""
        if self._parser.get_status_code() < 200:
            return
        answer, self.answer = self.answer, None
        if answer is not None:
            keep = self._parser.should_keep_alive()
            self._parser = httptools.HttpResponseParser(self)
            answer.end(keep=keep)


class Answer:
    """An engine's answer: status and headers first, then the body in pieces or whole."""

    def __init__(self, upstream: "Upstream", connection: Connection) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._upstream = upstream
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._queued_bytes = 0
        self._header_bytes = 0
        self._is_paused = False
        self._is_ended = False
        self._is_lost = False
        self._wake: asyncio.Future[None] | None = None

    async def begun(self) -> None:
        """Wait for status and headers. Raises ConnectionError."""
        while not self.status:
            if self._is_lost:
                raise ConnectionResetError("the engine closed the connection before it answered")
            await self._wait()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; what has queued up meanwhile comes as one piece."""
        while True:
            if self._pieces:
                piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces.clear()
                self._queued_bytes = 0
                self._resume()
                yield piece
            elif self._is_ended:
                return
            elif self._is_lost:
                raise ConnectionResetError(
                    "the engine closed the connection in the middle of its answer"
                )
            else:
                await self._wait()

    async def read(self, bytes_max: int) -> bytes:
        """Return the whole body. Raises ConnectionError, also for one longer than `bytes_max`."""
        parts = []
        size = 0
        async for piece in self.pieces():
            parts.append(piece)
            size += len(piece)
            if size > bytes_max:
                self.abort()
                raise ConnectionAbortedError("the engine's answer is too long")
        return b"".join(parts)

    def abort(self) -> None:
        """Close the connection unless the answer has ended."""
        if not self._is_ended:
            self._connection.abort()

    # What the connection calls:

    def add_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, bounded."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADERS_BYTES_MAX:
            self._connection.abort()
            return
        self.headers[name] = value

    def begin(self, status: int) -> None:
        """Note the status; an informational answer is not the answer."""
        if status < 200:
            self.headers.clear()
            return
        self.status = status
        self._notify()

    def add(self, piece: bytes) -> None:
        """Queue a piece; a reader that is slow stops the engine."""
        self._pieces.append(piece)
        self._queued_bytes += len(piece)
        transport = self._connection.transport
        if self._queued_bytes > PAUSE_BYTES and not self._is_paused and transport is not None:
            self._is_paused = True
            transport.pause_reading()
        self._notify()

    def end(self, *, keep: bool) -> None:
        """The body is complete; give the connection back."""
        self._is_ended = True
        self._resume()
        self._upstream.give_back(self._connection, keep=keep)
        self._notify()

    def closed(self, *, in_order: bool) -> None:
        """The connection is gone: the end of a body that stated no length (RFC 9112 §6.3), else a loss."""
        if in_order and self.status and not self.headers.keys() & LENGTH_HEADERS:
            self.end(keep=False)
            return
        self._is_lost = True
        self._notify()

    def _resume(self) -> None:
        transport = self._connection.transport
        if self._is_paused and transport is not None:
            self._is_paused = False
            transport.resume_reading()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _wait(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None


class Upstream:
    """The connections to one address. Not for use from several event loops."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[Connection] = []
        self._tls = ssl.create_default_context() if address.tls else None
        self._fixed = f"host: {address.authority}\r\ncontent-type: application/json\r\n"

    async def send(self, method: str, path: str, body: bytes) -> Answer:
        """Send a request and return its answer once status and headers are there.

        Sent a second time only if a kept connection turned out to be closed before anything came
        back. Raises Error(UNAVAILABLE).
        """
        head = (
            f"{method} {self.address.prefix}{path} HTTP/1.1\r\n{self._fixed}"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode("latin-1")
        while True:
            connection = self._take()
            is_fresh = connection is None
            if connection is None:
                connection = await self._open()
            answer = Answer(self, connection)
            connection.answer = answer
            try:
                assert connection.transport is not None, "set before a connection is handed out"
                connection.transport.write(head + body)
                await answer.begun()
            except ConnectionError as error:
                if is_fresh:
                    raise unavailable() from error
            except BaseException:
                connection.abort()
                raise
            else:
                return answer

    def give_back(self, connection: Connection, *, keep: bool) -> None:
        """Keep a connection whose answer has ended for the next request, or close it."""
        if keep and len(self._idle) < IDLE_MAX and not connection.is_lost:
            self._idle.append(connection)
        elif connection.transport is not None:
            connection.transport.close()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().abort()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if (
                not connection.is_lost
                and connection.transport is not None
                and not connection.transport.is_closing()
            ):
                return connection
        return None

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if self.address.socket is not None:
                    _, connection = await loop.create_unix_connection(
                        Connection, self.address.socket
                    )
                else:
                    _, connection = await loop.create_connection(
                        Connection, self.address.host, self.address.port, ssl=self._tls
                    )
        except (OSError, TimeoutError) as error:
            raise unavailable() from error
        return connection


def unavailable() -> Error:
    """Return the error for an engine that cannot be reached or broke off."""
    return Error(
        Kind.UNAVAILABLE,
        "The engine of this model is not available right now. Try again shortly.",
        code="engine_unavailable",
        retry_after_seconds=1,
    )

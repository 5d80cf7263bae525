"""Creates the exchanges of one connection, with a cache of the last request head.

A keep-alive client repeats its head with each request, except for Content-Length. The last head is cached
with its parse result, and a message that repeats it needs no parser (`engines/head_cache.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from tunewarden.engines import head_cache
from tunewarden.engines.head_cache import Repeated
from tunewarden.errors import Error
from tunewarden.gateway.connection import ClientConnection
from tunewarden.gateway.exchange import Exchange
from tunewarden.gateway.parsing import RequestParser
from tunewarden.gateway.worker import Worker
from tunewarden.identity.key_format import Presented

# Heads with these headers are not cached: they carry more than is cached, or differ per request.
SPECIAL = frozenset(
    {b"expect", b"traceparent", b"transfer-encoding", b"upgrade", b"x-client-request-id"}
)


class DefaultHeaders(Protocol):
    """uvicorn's ServerState: headers of every response, replaced each second."""

    default_headers: list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Head:
    """A parsed request head."""

    written: Repeated
    path: str
    presented: Presented
    cors: bytes


class Exchanges:
    """The exchanges of one connection; `on_over` is called at the end of each."""

    __slots__ = ("_client", "_head", "_on_over", "_state", "_worker", "first_bytes")

    # The default headers of the last response, and their encoded lines; shared by all connections.
    _default: ClassVar[tuple[object, bytes]] = (None, b"")

    def __init__(
        self,
        worker: Worker,
        client: ClientConnection,
        state: DefaultHeaders,
        on_over: Callable[[], object],
    ) -> None:
        self._worker = worker
        self._client = client
        self._state = state
        self._on_over = on_over
        self._head: Head | None = None
        self.first_bytes = b""  # the read in which the arriving head began

    def forget(self) -> None:
        """Drop the cached head: another one is arriving."""
        self._head = None

    def repeated(self, data: bytes) -> Exchange | None:
        """Return the exchange of a complete message with the cached head; None if `data` is anything else."""
        head = self._head
        body = None if head is None else head.written.body_of(data)
        if head is None or body is None:
            return None
        return self._new(
            head.path,
            head.presented,
            body,
            cors=head.cors,
            keep_alive=True,
            expects_continue=False,
            is_chunked=True,
        )

    def parsed(self, path: str, parser: RequestParser, *, may_repeat: bool) -> Exchange:
        """Return the exchange of the parsed head; cache the head if `may_repeat`."""
        first_bytes, self.first_bytes = self.first_bytes, b""
        presented: Presented | Error
        try:
            presented = self._worker.presented(parser.headers)
        except Error as error:
            presented = error.with_traceback(None)  # its frames reference the error: a cycle
        allowed = self._worker.cors
        cors = b"" if allowed is None else allowed.lines(parser.headers)
        if may_repeat and parser.is_kept and isinstance(presented, Presented):
            written = b"" if parser.is_rewritten else first_bytes
            self._head = _learnt(written, parser.headers, path, presented, cors)
        return self._new(
            path,
            presented,
            cors=cors,
            announced=_announced(parser.headers),
            keep_alive=parser.is_kept,
            expects_continue=parser.expects_continue,
            is_chunked=parser.version != "1.0",
            headers=parser.headers,
        )

    def _new(
        self,
        path: str,
        presented: Presented | Error,
        body: bytes | None = None,
        *,
        cors: bytes,
        announced: int = 0,
        keep_alive: bool,
        expects_continue: bool,
        is_chunked: bool,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> Exchange:
        tracing, span = self._worker.inference.observer.tracing, None
        if tracing is not None:
            parents = [value for name, value in headers if name == b"traceparent"]
            span = tracing.begin(parents[0] if len(parents) == 1 else b"")
        return Exchange(
            self._worker.inference,
            self._client,
            path,
            presented,
            body=body,
            announced=announced,
            keep_alive=keep_alive and not self._worker.is_draining,
            expects_continue=expects_continue,
            is_chunked=is_chunked,
            default_head=self._default_head() + cors,
            on_over=self._on_over,
            span=span,
        )

    def _default_head(self) -> bytes:
        headers = self._state.default_headers
        if self._default[0] is not headers:
            lines = b"".join([b"%b: %b\r\n" % header for header in headers])
            Exchanges._default = headers, lines
        return self._default[1]


def _announced(headers: list[tuple[bytes, bytes]]) -> int:
    """Return the Content-Length, which the parser has checked; 0 if there is none."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _learnt(
    data: bytes, headers: list[tuple[bytes, bytes]], path: str, presented: Presented, cors: bytes
) -> Head | None:
    """Return the head that `data` begins with, and its parse result; None if it must not be cached."""
    names = [name for name, _ in headers]
    if names.count(b"content-length") != 1 or not SPECIAL.isdisjoint(names):
        return None
    found = head_cache.learn(data)
    return None if found is None else Head(found, path, presented, cors)

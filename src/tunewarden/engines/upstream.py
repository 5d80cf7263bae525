"""A pool of keep-alive HTTP/1.1 connections to one engine; our own, because deletion must be able to close them.

One protocol object per connection (`upstream_connection.py`). Responses arrive by callbacks, in the loop iteration in which
they are read: no task and no future between an engine's socket and a client's. Closing a connection is the
last resort that aborts a request on any engine.
"""

import asyncio

from tunewarden.engines.address import Address
from tunewarden.engines.request import AwaitedRequest, Request
from tunewarden.engines.tls import ClientTls
from tunewarden.engines.upstream_connection import UpstreamConnection
from tunewarden.errors import Error, Kind

CONNECT_SECONDS = 5
IDLE_MAX = 256
PROBE_BYTES_MAX = 16 * 1024 * 1024
UNAVAILABLE = "engine_unavailable"


class Upstream:
    """The connection pool of one address. For one event loop.

    `key` is the API key that the engine requires; `tls` makes its contexts, where its address is https.
    """

    def __init__(
        self, address: Address, key: str | None = None, tls: ClientTls | None = None
    ) -> None:
        self._address = address
        self._idle: list[UpstreamConnection] = []
        self._tls = (tls or ClientTls(None)) if address.tls else None
        self._fixed = f"host: {address.authority}\r\ncontent-type: application/json\r\n"
        # Responses are parsed and rewritten here, so they must not be compressed.
        self._fixed += "accept-encoding: identity\r\n"
        if key is not None:
            self._fixed += f"authorization: Bearer {key}\r\n"
        self._heads: dict[str, bytes] = {}
        self._opening: set[asyncio.Task[None]] = set()

    def post(self, path: str, body: bytes, request: Request, header: bytes = b"") -> None:
        """Send a POST, with an optional extra header line; the response goes to `request`.

        Retried once, on a new connection, only if a kept-alive one turns out to be closed before anything
        came back. Whether the engine received it is unknown (RFC 9110 §9.2.2): an engine that crashed on it closes its
        connections too. So it is never retried on another process than the one it was sent
        to first, where that can be seen: a request that kills an engine must not kill the next one.
        """
        head = self._heads.get(path)
        if head is None:
            # One per route, so clients cannot grow it.
            head = self._heads[path] = (
                f"POST {self._address.prefix}{path} HTTP/1.1\r\n{self._fixed}content-length: "
            ).encode("latin-1")
        request.closed_by = None
        request.data = b"%b%d\r\n%b\r\n%b" % (head, len(body), header, body)
        self.send(request)

    def send(self, request: Request) -> None:
        """Send a request."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.carry(request)
                return
        self.open_for(request)

    def open_for(self, request: Request) -> None:
        """Send a request on a new connection."""
        request.is_waiting = True
        opening = asyncio.get_running_loop().create_task(self._open(request))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def ask(self, path: str, body: bytes, bytes_max: int) -> tuple[int, bytes]:
        """Send a POST and return the response's status and body. Raises ConnectionError."""
        asked = AwaitedRequest(bytes_max)
        self.post(path, body, asked)
        try:
            return await asked.answer
        finally:
            asked.abort()

    async def answers(self, *, within_seconds: float) -> bool:
        """Whether the engine lists its models in time, on a new connection."""
        asked = AwaitedRequest(PROBE_BYTES_MAX)
        head = f"GET {self._address.prefix}/models HTTP/1.1\r\n{self._fixed}\r\n"
        asked.data = head.encode("latin-1")
        self.open_for(asked)
        try:
            async with asyncio.timeout(within_seconds):
                status, _ = await asked.answer
        except (ConnectionError, TimeoutError):
            return False
        finally:
            asked.abort()
        return status == 200

    def give_back(self, connection: UpstreamConnection) -> None:
        """Return a connection to the pool, or close it if the pool is full."""
        if len(self._idle) < IDLE_MAX and connection.is_open:
            self._idle.append(connection)
        else:
            connection.close()

    def lost(self, connection: UpstreamConnection) -> None:
        """Forget a connection."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close idle connections."""
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
                    context = None if self._tls is None else self._tls.context()
                    _, connection = await loop.create_connection(
                        self._new, address.host, address.port, ssl=context
                    )
        except (OSError, TimeoutError):
            if request.is_waiting:
                request.connection_failed()
            return
        if request.is_waiting:
            request.is_waiting = False
            if request.closed_by in {None, connection.process}:
                connection.carry(request)
            else:
                self.give_back(connection)
                request.connection_failed()
        else:
            self.give_back(connection)

    def _new(self) -> UpstreamConnection:
        return UpstreamConnection(self)


def unavailable() -> Error:
    """Return the error for an engine that cannot be reached or closed the connection."""
    return Error(
        Kind.UNAVAILABLE,
        "The engine of this model is not available right now. Try again shortly.",
        code=UNAVAILABLE,
        retry_after_seconds=1,
    )

"""Calls the application in-process, without a socket: for commands that run while no server does."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.types import Message, Scope

from tunewarden.api.server import Server
from tunewarden.errors import Error, Kind
from tunewarden.gateway.connection import EXTENSION


class DirectAnswer(NamedTuple):
    """One answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Direct:
    """An in-process ASGI client. Sends one request at a time, on its own event loop. Close it after use.

    Inference is not available: it writes to the client's connection directly.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.Runner()

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Iterable[bytes] = (),
        into: Callable[[bytes], object] | None = None,
    ) -> DirectAnswer:
        """Return the complete response; `path` is percent-encoded and may have a query. The body is read lazily.

        With `into`, the body of a response with status 200 goes there piece by piece. Raises Error(UNAVAILABLE) for a
        response that was aborted.
        """
        return self._loop.run(self._ask(_scope(method, path, headers), _Body(body), into))

    def close(self) -> None:
        """End the event loop."""
        self._loop.close()

    async def _ask(
        self, scope: Scope, body: "_Body", into: Callable[[bytes], object] | None
    ) -> DirectAnswer:
        status = 0
        headers: dict[str, str] = {}
        pieces: list[bytes] = []

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message["headers"]:
                    headers[name.decode("latin-1").lower()] = value.decode("latin-1")
            elif into is not None and status == 200:
                into(message.get("body", b""))
            else:
                pieces.append(message.get("body", b""))

        connection = scope["extensions"][EXTENSION] = _Connection()
        await self._server(scope, body.receive, send)
        if connection.was_aborted:
            raise Error(Kind.UNAVAILABLE, "The answer was cut short: what it is of was deleted.")
        return DirectAnswer(status, headers, b"".join(pieces))


class _Connection:
    """A `ClientConnection` to this process, for downloads: whatever was sent has arrived."""

    is_lost = False

    def __init__(self) -> None:
        self.on_lost: Callable[[], object] | None = None
        self.flushes = self
        self.was_aborted = False

    def guard(self) -> None:
        """Do nothing: nothing is on its way."""

    def mark(self) -> None:
        """Do nothing: nothing is on its way."""

    def has_flushed(self) -> bool:
        """Return True: nothing is on its way."""
        return True

    def written_since_last(self) -> int:
        """Return 0: nothing is written to a connection."""
        return 0

    async def until(self, is_done: Callable[[], bool]) -> None:
        """Return at once, because it is done."""

    async def abort(self) -> None:
        """Note that the response is not complete."""
        self.was_aborted = True


class _Body:
    """A request's body as ASGI hands it over."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._is_over = False

    async def receive(self) -> Message:
        """Return the next piece; after the last one, block, like a client that waits for its response."""
        if self._is_over:
            await asyncio.Event().wait()
        piece = next(self._pieces, None)
        self._is_over = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": not self._is_over}


def _scope(method: str, path: str, headers: Mapping[str, str]) -> Scope:
    parts = urlsplit(path)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "server": ("localhost", 80),
        "client": ("localhost", 0),
        "extensions": {},
        "root_path": "",
        "path": parts.path,
        "raw_path": parts.path.encode("ascii"),
        "query_string": parts.query.encode("ascii"),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }

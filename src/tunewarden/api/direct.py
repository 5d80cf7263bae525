"""Calls the application in-process, without a socket: for commands that run while no server does."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.types import Message, Scope

from tunewarden.api.server import Server


class DirectAnswer(NamedTuple):
    """One answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Direct:
    """An in-process ASGI client. Sends one request at a time, on its own event loop. Close it after use.

    Routes that write to the client's connection directly are not available: inference, and file contents.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.Runner()

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: Iterable[bytes] = ()
    ) -> DirectAnswer:
        """Return the complete response; `path` is percent-encoded and may have a query. The body is read lazily."""
        return self._loop.run(self._ask(_scope(method, path, headers), _Body(body)))

    def close(self) -> None:
        """End the event loop."""
        self._loop.close()

    async def _ask(self, scope: Scope, body: "_Body") -> DirectAnswer:
        status = 0
        headers: dict[str, str] = {}
        pieces: list[bytes] = []

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message["headers"]:
                    headers[name.decode("latin-1").lower()] = value.decode("latin-1")
            else:
                pieces.append(message.get("body", b""))

        await self._server(scope, body.receive, send)
        return DirectAnswer(status, headers, b"".join(pieces))


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
        "root_path": "",
        "path": parts.path,
        "raw_path": parts.path.encode("ascii"),
        "query_string": parts.query.encode("ascii"),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }

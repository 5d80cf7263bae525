"""uvicorn's request cycle and flow control for ASGI requests, with stricter back-pressure and framing."""

import asyncio
from collections.abc import Callable
from typing import cast

from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tunewarden.gateway.connection import EXTENSION, ClientConnection
from tunewarden.gateway.parsing import RequestParser

UNTIL_CLOSED = 1 << 62


class Flow(FlowControl):
    """uvicorn's flow control, plus a pause by the connection that a request cannot end."""

    is_held = False

    def hold(self) -> None:
        """Pause reading until `release`."""
        self.is_held = True
        self.pause_reading()

    def release(self) -> None:
        """End the pause and resume reading."""
        self.is_held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Resume reading, unless the connection has paused it."""
        if not self.is_held:
            super().resume_reading()


class NoEvent:
    """Stands for the event of a disconnect, which uvicorn sets, where `Exchange.lost` is called instead."""

    def set(self) -> None:
        """Do nothing."""


class Outlet:
    """A transport for the cycle that writes through `ClientConnection`, so that its bytes are counted."""

    __slots__ = ("_client", "_close")

    def __init__(self, client: ClientConnection, close: Callable[[], object]) -> None:
        self._client = client
        self._close = close

    def write(self, data: bytes) -> None:
        """Write, unless the connection is lost."""
        self._client.write(data)

    def close(self) -> None:
        """Close the connection gracefully."""
        self._close()

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""
        return self._client.is_lost or self._client.transport.is_closing()

    @property
    def as_transport(self) -> "asyncio.Transport":
        """Return itself, typed as uvicorn expects."""
        return cast("asyncio.Transport", self)


class Cycle(RequestResponseCycle):
    """One request and its response."""

    _ends_with_connection = False

    def add(self, piece: bytes) -> None:
        """Add a piece of the body, and pause reading until the application has consumed it."""
        self.body += piece
        if len(self.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.message_event.set()

    def end(self) -> None:
        """Note that the body is complete."""
        self.more_body = False
        self.message_event.set()

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Run the application. Cancellation at shutdown is not logged as an error."""

        async def cancellable(
            scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
        ) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                if not self.disconnected:
                    raise

        await super().run_asgi(cancellable)

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            if self.more_body:
                # After this response the client may or may not send the body. RFC 9110 §10.1.1
                self.keep_alive = False
            names = {name.lower() for name, _ in message.get("headers", [])}
            if self.scope["http_version"] == "1.0" and b"content-length" not in names:
                # RFC 9112 §6.1: no chunked encoding. Closing the connection ends the body.
                self._ends_with_connection = True
                self.chunked_encoding = False
                self.expected_content_length = UNTIL_CLOSED
        elif self._ends_with_connection and not message.get("more_body", False):
            self.expected_content_length = len(cast("bytes", message.get("body", b"")))
        await super().send(message)


def new_cycle(
    protocol: HttpToolsProtocol,
    parser: RequestParser,
    client: ClientConnection,
    close: Callable[[], object],
) -> Cycle:
    """Return the cycle of the request whose head was parsed; `close` closes the connection gracefully."""
    scope: HTTPScope = {
        "type": "http",
        "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
        "http_version": parser.version,
        "server": protocol.server,
        "client": protocol.client,
        "scheme": protocol.scheme or "http",
        "method": parser.method.decode("ascii"),
        "root_path": protocol.root_path,
        "path": parser.path.decode("latin-1"),
        "raw_path": parser.path,
        "query_string": parser.query,
        "headers": parser.headers,
        "state": protocol.app_state.copy(),
        "extensions": {EXTENSION: client},  # type: ignore[dict-item]  # uvicorn's type wants dicts of JSON
    }
    return Cycle(
        scope=scope,
        transport=Outlet(client, close).as_transport,
        flow=protocol.flow,
        logger=protocol.logger,
        access_logger=protocol.access_logger,
        access_log=protocol.access_log,
        default_headers=protocol.server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=parser.expects_continue,
        keep_alive=parser.is_kept,
        on_response=protocol.on_response_complete,
    )

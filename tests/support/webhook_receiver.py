"""A real HTTP server that receives webhooks, with and without TLS; what it answers follows from the path."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from openai import OpenAI
from tests.support import authority, sdk_http, servers

HOST = authority.HOST
FOREVER_SECONDS = 120.0
PIECE = b"x" * 65_536


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    def event(self, secret: str) -> Any:
        """Return the event as the stock SDK verifies and reads it."""
        http = sdk_http.client()
        with OpenAI(api_key="unused", webhook_secret=secret, http_client=http) as client:
            return client.webhooks.unwrap(self.body, self.headers)


@dataclass
class Receiver:
    """What came in. `statuses` are answered in order to requests on /ok, then 200."""

    is_tls: bool
    port: int = 0
    received: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    on_request: Callable[[Received], None] = lambda _: None
    ended: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/ok", host: str = HOST) -> str:
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{path}"

    def of(self, event_type: str) -> list[Received]:
        """The requests whose body names a type of events."""
        return [one for one in list(self.received) if f'"{event_type}"'.encode() in one.body]

    def wait_for(self, count: int, what: str = "events") -> list[Received]:
        servers.wait_until(lambda: len(self.received) >= count, f"{count} {what}")
        return list(self.received)


@contextlib.contextmanager
def receiving(directory: Path | None = None, port: int = 0) -> Iterator[Receiver]:
    """Receive for a block; with a directory by TLS, of the authority `ca.pem` there."""
    receiver = Receiver(is_tls=directory is not None)
    server = ThreadingHTTPServer((HOST, port), _handler(receiver))
    server.daemon_threads = True
    if directory is not None:
        context = authority.server_context(directory)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got = Received(self.path, headers, body, time.time())
            receiver.received.append(got)
            receiver.on_request(got)
            with contextlib.suppress(OSError):
                _ANSWERS.get(self.path.split("?")[0], _answer)(self, receiver)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _answer(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    status = receiver.statuses.pop(0) if receiver.statuses else 200
    handler.send_response(status)
    handler.send_header("content-length", "0")
    handler.end_headers()


def _redirect(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    handler.send_response(307)
    handler.send_header("location", receiver.url("/elsewhere"))
    handler.send_header("content-length", "0")
    handler.end_headers()


def _hang(_: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    receiver.ended.wait(FOREVER_SECONDS)


def _drip(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    """Send a status line one byte a moment, for ever."""
    for byte in b"HTTP/1.1 200 " + b"O" * 10_000:
        handler.wfile.write(bytes([byte]))
        if receiver.ended.wait(0.1):
            return


def _slow_head(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    """Answer 200 at once, and never come to the end of the head."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not receiver.ended.wait(0.1):
        handler.wfile.write(b"x: y\r\n")


def _slow_body(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    """Answer 200, and then send a byte a moment, for ever."""
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    while not receiver.ended.wait(0.05):
        handler.wfile.write(b"x")


def _busy(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    """Ask to be tried again after 7200 seconds, `statuses` first."""
    handler.send_response(receiver.statuses.pop(0) if receiver.statuses else 503)
    handler.send_header("Retry-After", "7200")
    handler.end_headers()


def _huge(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not receiver.ended.is_set():
        handler.wfile.write(PIECE)


def _long_line(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    while not receiver.ended.is_set():
        handler.wfile.write(PIECE)


def _interim(handler: BaseHTTPRequestHandler, _: Receiver) -> None:
    handler.wfile.write(
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    )


def _garbage(handler: BaseHTTPRequestHandler, _: Receiver) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")


def _close(handler: BaseHTTPRequestHandler, _: Receiver) -> None:
    handler.close_connection = True


_ANSWERS: Mapping[str, Callable[[BaseHTTPRequestHandler, Receiver], None]] = {
    "/redirect": _redirect,
    "/hang": _hang,
    "/drip": _drip,
    "/slow-head": _slow_head,
    "/slow-body": _slow_body,
    "/busy": _busy,
    "/huge": _huge,
    "/long-line": _long_line,
    "/interim": _interim,
    "/garbage": _garbage,
    "/close": _close,
}

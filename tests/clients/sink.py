"""What takes the traces that clients send: an HTTP server that answers every request with 200."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Sink:
    """Its address, and the paths of what came."""

    url: str
    paths: list[str] = field(default_factory=list)


@contextlib.contextmanager
def open_sink() -> Iterator[Sink]:
    """Run a sink for a block."""

    class Taker(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            sink.paths.append(self.path)
            self._answer(b"{}")

        def do_GET(self) -> None:
            # What it took, a path a line, for the clients' programs.
            self._answer("\n".join(sink.paths).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    sink = Sink(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""The listener for scrapes, on an address of its own (`metrics_address`): `GET /metrics`, and nothing else.

It needs no key, so it is on loopback unless an operator opens it: what it says concerns all organizations, but names
none of them, and no model. It runs in the runner, beside the traffic of clients.
"""

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tunewarden.app import App
from tunewarden.clock import Throttle
from tunewarden.errors import Error
from tunewarden.metrics.memory import Memory

PATH = "/metrics"
# Of a scraper that sends nothing, or reads nothing.
SCRAPER_SECONDS = 5.0
POLL_SECONDS = 0.5
# Scrapers at once; one more is disconnected.
SCRAPERS_MAX = 8

logger = logging.getLogger(__name__)


def serve(app: App, listening: socket.socket, memory: Memory, stop: threading.Event) -> None:
    """Answer scrapes until `stop` is set, and end when the last one is answered."""
    from prometheus_client import CONTENT_TYPE_LATEST  # noqa: PLC0415  only for those who scrape

    from tunewarden.server.scrape import Page  # noqa: PLC0415  the same

    page = Page(app, memory)
    handler = partial(
        _Handler, render=page.text, kind=CONTENT_TYPE_LATEST, logged=Throttle(app.clock)
    )
    with _Listener(listening, handler) as server:
        while not stop.is_set():
            server.handle_request()


class _Listener(ThreadingHTTPServer):
    """A server on a socket that is listening already, with a bound on its threads."""

    timeout = POLL_SECONDS  # of `handle_request`

    def __init__(self, listening: socket.socket, handler: Any) -> None:
        super().__init__(listening.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self._free = threading.BoundedSemaphore(SCRAPERS_MAX)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if one is free."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, in the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: the scraper left, or was too slow."""


class _Handler(BaseHTTPRequestHandler):
    timeout = SCRAPER_SECONDS
    server_version = "tunewarden"
    sys_version = ""

    def __init__(
        self, *given: Any, render: Callable[[], bytes], kind: str, logged: Throttle
    ) -> None:
        self._render = render
        self._kind = kind
        self._logged = logged
        super().__init__(*given)

    def do_GET(self) -> None:
        """Answer one scrape."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        try:
            body = self._render()
        except Error as error:
            if self._logged.allows(error.message):
                logger.warning("metrics cannot be collected: %s", error.message)
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("content-type", self._kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: scrapes are frequent, and of no interest."""

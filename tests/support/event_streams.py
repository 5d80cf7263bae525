"""Server-sent events of the console, as a browser's EventSource asks for them."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.console import Visitor

TIMEOUT_SECONDS = 30.0


@contextmanager
def opened(visitor: Visitor, path: str) -> Iterator[http.client.HTTPResponse]:
    host, port = visitor.server.address
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        headers = {"cookie": str(visitor.cookie), "accept": "text/event-stream"}
        connection.request("GET", path, headers=headers)
        yield connection.getresponse()
    finally:
        connection.close()


def next_event(stream: http.client.HTTPResponse) -> str | None:
    """Read on to the next event's name; None: the stream has ended."""
    while line := stream.readline():
        if line.startswith(b"event: "):
            return line.removeprefix(b"event: ").strip().decode()
    return None

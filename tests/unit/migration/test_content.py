"""A file of the source without a length of its own: read to its end, and no further than the inventory says."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from tests.fakes.clock import HandClock

from tunewarden.errors import Error, Kind
from tunewarden.migration import addresses
from tunewarden.migration.content import Content, Part
from tunewarden.migration.source import Source

TEXT = b"one line\nand another one\n"


@contextmanager
def _serving(body: bytes) -> Iterator[Source]:
    """A source that sends a body and closes the connection, as HTTP/1.0 does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            """Stay silent."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        address = addresses.parse(f"http://127.0.0.1:{server.server_address[1]}/v1")
        yield Source(address, "key", clock=HandClock(), say=lambda _: None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _read(content: Content) -> bytes:
    return b"".join(iter(lambda: content.read(5), b""))


def test_the_digest_is_of_the_whole_file() -> None:
    with _serving(TEXT) as source, closing(Content(source, "file-1", len(TEXT), [])) as content:
        assert _read(content) == TEXT
        assert content.end() == hashlib.sha256(TEXT).hexdigest()


def test_a_file_that_goes_on_behind_its_size_is_refused() -> None:
    with (
        _serving(TEXT) as source,
        closing(Content(source, "file-1", len(TEXT) - 1, [])) as content,
    ):
        assert _read(content) == TEXT[:-1]
        with pytest.raises(Error, match="not at the source what it was") as raised:
            content.end()
    assert raised.value.kind is Kind.CONFLICT


def test_a_file_that_is_shorter_than_its_size_is_given_up() -> None:
    with (
        _serving(TEXT) as source,
        closing(Content(source, "file-1", len(TEXT) + 1, [])) as content,
        pytest.raises(Error, match="broke off file-1"),
    ):
        _read(content)


def test_what_an_earlier_command_read_is_in_no_digest_of_this_one() -> None:
    known = [Part(9, hashlib.sha256(TEXT[:9]).hexdigest())]
    with _serving(TEXT) as source, closing(Content(source, "file-1", len(TEXT), known)) as content:
        assert _read(content) == TEXT[9:]
        assert content.end() is None

"""What a source says that is not OpenAI's API, and what it is not asked twice."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.fakes.clock import HandClock

from tunewarden.errors import Error, Kind
from tunewarden.migration import addresses
from tunewarden.migration.source import Source


@contextmanager
def _answering(
    status: int, body: bytes, length: int | None = None
) -> Iterator[tuple[Source, list[str]]]:
    """A source whose server says the same to everything; and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            """Stay silent."""

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body) if length is None else length))
            self.send_header("location", "http://127.0.0.1:9/")
            self.end_headers()
            self.wfile.write(body)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        address = addresses.parse(f"http://127.0.0.1:{server.server_address[1]}/v1")
        yield Source(address, "key", clock=HandClock(), say=lambda _: None), asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"data": 1}',
        b'{"data": [1]}',
        b'{"data": [{}]}',
        b'{"data": [{"id": 7}]}',
        b'{"data": [{"id": "\\ud800"}]}',
    ],
)
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with _answering(200, body) as (source, _), pytest.raises(Error, match="OpenAI's API"):
        list(source.listed("files"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, Kind.INVALID),
        (401, Kind.UNAUTHENTICATED),
        (403, Kind.FORBIDDEN),
        (404, Kind.NOT_FOUND),
        (418, Kind.INVALID),
    ],
)
def test_a_refusal_is_not_asked_again_and_its_words_are_not_repeated(
    status: int, kind: Kind
) -> None:
    body = b'{"error": {"message": "the key sk-secret"}}'
    with _answering(status, body) as (source, asked), pytest.raises(Error) as raised:
        source.get("models")
    assert raised.value.kind is kind
    assert "secret" not in raised.value.message
    assert asked == ["/v1/models"]


def test_an_answer_that_is_cut_short_is_asked_for_again_until_it_is_enough() -> None:
    with _answering(200, b'{"data": []}', length=100) as (source, asked):
        with pytest.raises(Error, match="not all of it") as raised:
            source.get("models")
        assert raised.value.kind is Kind.UNAVAILABLE
    assert len(asked) == 6


def test_a_list_whose_pages_do_not_move_on_ends() -> None:
    body = b'{"data": [{"id": "a"}], "has_more": true}'
    with _answering(200, body) as (source, asked):
        assert [one["id"] for one in source.listed("files")] == ["a"]
    assert len(asked) == 2


def test_pages_that_lead_back_end_and_each_object_comes_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a list that changes while it is read, or of a server without an order."""
    pages = {None: ["a", "b", "b"], "b": ["b", "c"], "c": ["a"], "a": ["c", "b"]}
    asked: list[str | None] = []

    def get(_: Source, *segments: str, limit: int, after: str | None) -> dict[str, object]:
        asked.append(after)
        assert len(asked) < 10
        return {"data": [{"id": one} for one in pages[after]], "has_more": True}

    monkeypatch.setattr(Source, "get", get)
    source = Source(
        addresses.parse("http://127.0.0.1:1/v1"), "key", clock=HandClock(), say=lambda _: None
    )
    assert [one["id"] for one in source.listed("files")] == ["a", "b", "c"]
    assert asked == [None, "b", "c"]


def test_why_there_is_no_connection_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = addresses.parse(f"http://127.0.0.1:{port}/v1")
    source = Source(address, "key", clock=HandClock(), say=lambda _: None)
    with pytest.raises(Error, match="gave no answer, or not all of it \\(Connection refused\\)"):
        source.get("models")

"""What is not plain HTTP/1.0 or HTTP/1.1 is refused and the connection closed; what is, is answered exactly."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.upstream import FakeUpstream
from tests.support import servers
from tests.support.servers import Server

from tunewarden.gateway.arrival import DROPPED_BYTES_MAX

BASE = "remote-base"
NEXT = b"GET /healthz HTTP/1.1\r\nhost: next\r\n\r\n"
FIELDS = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}]}
BODY = json.dumps(FIELDS).encode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("strict") / "data"
    with FakeUpstream() as upstream, servers.serving(data, workers=1) as running:
        added = running.cli("bases", "add", BASE, "--engine-url", upstream.url)
        assert added.returncode == 0, added.stderr
        yield running


def _request(start: str, *lines: str) -> bytes:
    return "\r\n".join([start, *lines, "", ""]).encode("latin-1")


def _ask(gateway: Server, sent: bytes) -> list[tuple[int, bytes]]:
    """Send and return (status, all of the answer) of each answer until the server closes."""
    with gateway.connect() as connection:
        connection.settimeout(10)
        connection.sendall(sent)
        return _answers(connection)


def _answers(connection: socket.socket, got: bytes = b"") -> list[tuple[int, bytes]]:
    while piece := connection.recv(65536):
        got += piece
    return [(int(one[:3]), one) for one in got.split(b"HTTP/1.1 ")[1:]]


CHAT = "POST /v1/chat/completions HTTP/1.1"
GET = "GET /healthz HTTP/1.1"
REFUSED = {
    "no host": (400, _request(GET)),
    "two hosts": (400, _request(GET, "host: a", "Host: b")),
    "a host that is none": (400, _request(GET, "host: a b")),
    "the same host twice": (400, _request(GET, "host: a", "host: a")),
    "two hosts in 1.0": (400, _request("GET /healthz HTTP/1.0", "host: a", "host: a")),
    "a host with a list": (400, _request(GET, "host: a,b")),
    "a port that is no number": (400, _request(GET, "host: a:b")),
    "half an address": (400, _request(GET, "host: [::1")),
    "a fragment": (400, _request("GET /healthz#a HTTP/1.1", "host: a")),
    "another scheme": (400, _request("GET ftp://a/healthz HTTP/1.1", "host: a")),
    "a user": (400, _request("GET http://a@b/healthz HTTP/1.1", "host: b")),
    "HTTP/2.0": (400, _request("GET /healthz HTTP/2.0", "host: a")),
    "HTTP/0.9": (400, b"GET /healthz\r\n\r\n"),
    "RTSP": (400, _request("GET /healthz RTSP/1.0", "host: a")),
    "ICE": (400, _request("SOURCE /healthz ICE/1.0", "host: a")),
    "two blanks before the version": (400, _request("GET /healthz  HTTP/1.1", "host: a")),
    "two blanks before the target": (400, _request("GET  /healthz HTTP/1.1", "host: a")),
    "HTTP/1.2": (400, _request("GET /healthz HTTP/1.2", "host: a")),
    "gzip, chunked": (501, _request(CHAT, "host: a", "transfer-encoding: gzip, chunked")),
    "chunked, chunked": (400, _request(CHAT, "host: a", "transfer-encoding: chunked, chunked")),
    "chunked twice": (
        400,
        _request(CHAT, "host: a", "transfer-encoding: chunked", "transfer-encoding: chunked"),
    ),
    "an unknown coding": (501, _request(CHAT, "host: a", "transfer-encoding: zip")),
    "chunked in 1.0": (
        400,
        _request("POST /healthz HTTP/1.0", "host: a", "transfer-encoding: chunked"),
    ),
    "chunked and a length": (
        400,
        _request(CHAT, "host: a", "transfer-encoding: chunked", "content-length: 5"),
    ),
    "a length and chunked": (
        400,
        _request(CHAT, "host: a", "content-length: 5", "transfer-encoding: chunked"),
    ),
    "two lengths": (400, _request(CHAT, "host: a", "content-length: 5", "content-length: 5")),
    "a list of lengths": (400, _request(CHAT, "host: a", "content-length: 5, 5")),
    "a signed length": (400, _request(CHAT, "host: a", "content-length: +5")),
    "a folded line": (400, _request(GET, "host: a", "x: a", " b")),
    "a space before the colon": (400, _request(GET, "host : a")),
    "a bare LF": (400, b"GET /healthz HTTP/1.1\nhost: a\n\n"),
    "two keys": (
        400,
        _request(GET, "host: a", "authorization: Bearer a", "authorization: Bearer b"),
    ),
    "a coded body": (415, _request(CHAT, "host: a", "content-encoding: gzip", "content-length: 5")),
    "CONNECT": (400, _request("CONNECT a:443 HTTP/1.1", "host: a:443")),
    "a TLS hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "129 headers": (431, _request(GET, "host: a", *["a: b"] * 128)),
    "65,000 empty headers": (431, _request(GET, "host: a") [:-2] + b"a:\r\n" * 65_000 + b"\r\n"),
    "a long head": (431, _request(GET, "host: a", f"x: {'y' * 66_000}")),
    "a long target": (431, _request(f"GET /{'y' * 66_000} HTTP/1.1", "host: a")),
    "a long name": (431, _request(GET, "host: a", f"{'y' * 66_000}: x")),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_and_nothing_behind_it_is_run(gateway: Server, what: str) -> None:
    status, sent = REFUSED[what]
    for before in (b"", NEXT * 3):
        answers = _ask(gateway, before + sent + NEXT)
        assert [found for found, _ in answers] == [200] * (3 if before else 0) + [status]
        head, _, body = answers[-1][1].partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        assert b"\r\nx-request-id: req_" in head
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_an_endless_header_is_refused_before_it_ends(gateway: Server) -> None:
    with gateway.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
        sent = 0
        try:
            while sent < 10_000_000:
                sent += connection.send(b"y" * 16_384)
                connection.settimeout(0.01)
                try:
                    got = connection.recv(12)
                    break
                except TimeoutError:
                    connection.settimeout(10)
        finally:
            print(f"refused after {sent} bytes")
        assert got == b"HTTP/1.1 431"


@pytest.mark.parametrize("kind", ["trailers", "chunk extensions"])
def test_endless_framing_of_a_body_is_refused(gateway: Server, kind: str) -> None:
    begin = b"5\r\nabcde\r\n0\r\nx: " if kind == "trailers" else b"5;x="
    head = _request(
        CHAT, "host: a", "transfer-encoding: chunked", f"authorization: Bearer {gateway.owner_key}"
    )
    answers = _ask(gateway, head + begin + b"y" * 300_000)
    assert [status for status, _ in answers] == [431]


@pytest.mark.parametrize("lines", [["x: y"] * 129, [f"x: {'y' * 66_000}"]], ids=["many", "long"])
def test_trailers_are_bounded_as_headers_are(gateway: Server, lines: list[str]) -> None:
    key = f"authorization: Bearer {gateway.owner_key}"
    head = _request(CHAT, "host: a", "transfer-encoding: chunked", key)
    trailers = "".join(f"{line}\r\n" for line in lines).encode()
    answers = _ask(gateway, head + b"5\r\nabcde\r\n0\r\n" + trailers + b"\r\n" + NEXT)
    assert [status for status, _ in answers] == [431]


TOO_LONG = 99_999_999_999
ROUTES = {
    "chat": CHAT,
    "a job": "POST /v1/fine_tuning/jobs HTTP/1.1",
    "an upload": "POST /v1/uploads HTTP/1.1",
    "a model": "POST /v1/models HTTP/1.1",
    "a file": "POST /v1/files HTTP/1.1",
}


@pytest.mark.parametrize("what", ROUTES)
def test_a_body_that_is_announced_over_the_limit_is_refused_unread(
    gateway: Server, what: str
) -> None:
    lines = [
        "host: a",
        f"authorization: Bearer {gateway.owner_key}",
        "content-type: multipart/form-data; boundary=b",
        f"content-length: {TOO_LONG}",
        "expect: 100-continue",
    ]
    answers = _ask(gateway, _request(ROUTES[what], *lines))
    assert [status for status, _ in answers] == [413]


def test_after_a_refusal_a_bounded_number_of_bytes_is_dropped(gateway: Server) -> None:
    with gateway.connect() as connection:
        connection.settimeout(10)
        connection.sendall(_request(CHAT, "host: a", f"content-length: {TOO_LONG}"))
        assert connection.recv(12) == b"HTTP/1.1 401"
        sent, piece = 0, bytes(1 << 20)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 2 * DROPPED_BYTES_MAX:
                connection.sendall(piece)
                sent += len(piece)
    print(f"{sent} bytes were dropped")
    assert DROPPED_BYTES_MAX <= sent < 2 * DROPPED_BYTES_MAX


def test_the_largest_honest_head_is_taken(gateway: Server) -> None:
    lines = ["host: a", "connection: close", *[f"x-{n}: {'y' * 400}" for n in range(126)]]
    assert [status for status, _ in _ask(gateway, _request(GET, *lines))] == [200]


@pytest.mark.parametrize("host", [(), ("host: a",)])
def test_http_1_0_needs_no_host_and_gets_no_chunks(gateway: Server, host: tuple[str, ...]) -> None:
    key = f"authorization: Bearer {gateway.owner_key}"
    stream = json.dumps({**FIELDS, "stream": True}).encode()
    asked = {
        "whole": _request("POST /v1/chat/completions HTTP/1.0", key, *host, f"content-length: {len(BODY)}") + BODY,
        "stream": _request("POST /v1/chat/completions HTTP/1.0", key, *host, f"content-length: {len(stream)}") + stream,
        "list": _request("GET /v1/models HTTP/1.0", key, *host),
        "kept": _request("GET /v1/models HTTP/1.0", key, *host, "connection: keep-alive"),
    }  # fmt: skip
    for what, sent in asked.items():
        answers = _ask(gateway, sent + NEXT)
        assert [status for status, _ in answers] == [200], what
        head, _, body = answers[0][1].partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        if what == "stream":
            assert body.startswith(b"data: {")
            assert body.endswith(b"data: [DONE]\n\n")
        else:
            json.loads(body)


def test_http_1_0_is_not_told_to_go_on(gateway: Server) -> None:
    key = f"authorization: Bearer {gateway.owner_key}"
    lines = (key, "expect: 100-continue", f"content-length: {len(BODY)}")
    answers = _ask(gateway, _request("POST /v1/chat/completions HTTP/1.0", *lines) + BODY)
    assert [status for status, _ in answers] == [200]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/fine_tuning/jobs"])
def test_who_is_refused_before_the_body_gets_the_connection_closed(
    gateway: Server, path: str
) -> None:
    """Whether the body follows is not known: a client that was refused may leave it out."""
    head = _request(
        f"POST {path} HTTP/1.1", "host: a", "expect: 100-continue", "content-length: 40"
    )
    with gateway.connect() as connection:
        connection.settimeout(10)
        connection.sendall(head)
        got = connection.recv(65536)
        connection.sendall(NEXT)  # not the body
        [(status, answer)] = _answers(connection, got)
        assert status == 401
        assert b"connection: close" in answer


def test_who_sends_all_of_a_large_body_before_it_reads_gets_the_refusal(gateway: Server) -> None:
    large = b"x" * 20_000_000
    head = _request(CHAT, "host: a", f"content-length: {len(large)}")
    coded = _request(CHAT, "host: a", f"content-length: {len(large)}", "content-encoding: gzip")
    for sent, status in ((head, 401), (coded, 415)):
        answers = _ask(gateway, sent + large)
        assert [found for found, _ in answers] == [status]


def test_a_broken_chunk_ends_its_own_request_with_a_400(gateway: Server) -> None:
    key = f"authorization: Bearer {gateway.owner_key}"
    for path, lines in (("/v1/chat/completions", (key,)), ("/v1/fine_tuning/jobs", (key,))):
        head = _request(f"POST {path} HTTP/1.1", "host: a", "transfer-encoding: chunked", *lines)
        for before in (b"", NEXT):
            answers = _ask(gateway, before + head + b"5\r\nabcde\r\nXYZ\r\n" + NEXT)
            assert [status for status, _ in answers] == [200] * bool(before) + [400]


def test_a_client_that_leaves_its_pipelined_requests_leaves_nothing_in_the_log(
    gateway: Server,
) -> None:
    before = gateway.log()
    key = f"authorization: Bearer {gateway.owner_key}"
    for _ in range(20):
        connection = gateway.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(_request("GET /v1/models HTTP/1.1", "host: a", key) * 12)
        connection.close()
    time.sleep(0.3)
    assert gateway.get("/healthz").status == 200
    assert gateway.log() == before


@pytest.mark.parametrize("path", ["/healthz", "/v1/models"])
def test_many_pipelined_requests_are_all_answered(gateway: Server, path: str) -> None:
    request = _request(f"GET {path} HTTP/1.1", "host: a")
    last = _request(f"GET {path} HTTP/1.1", "host: a", "connection: close")
    answers = _ask(gateway, request * 2_000 + last)
    assert len(answers) == 2_001


def test_nothing_above_was_a_bug_of_the_server(gateway: Server) -> None:
    assert "Traceback" not in gateway.log(), gateway.log()
    assert "ERROR" not in gateway.log(), gateway.log()

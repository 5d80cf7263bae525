"""Where one request ends and the next begins: what a client sends as a body is never run as a request."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.upstream import FakeUpstream
from tests.support import servers
from tests.support.servers import Server

BASE = "remote-base"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nhost: smuggled\r\n\r\n"
OFFERS = ("h2c", "websocket", "foo/2", "TLS/1.0, h2c")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("framing") / "data"
    with FakeUpstream() as upstream, servers.serving(data, workers=1) as running:
        added = running.cli("bases", "add", BASE, "--engine-url", upstream.url)
        assert added.returncode == 0, added.stderr
        yield running


def _lines(start: str, *lines: str) -> bytes:
    return "\r\n".join([start, "host: x", *lines, "", ""]).encode()


def _chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _exchange(gateway: Server, *pieces: bytes) -> bytes:
    """Send pieces in writes of their own and return all that comes until the server closes."""
    with gateway.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(10)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.002)
        got = b""
        while piece := connection.recv(65536):
            got += piece
        return got


def _statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


LAST = _lines("GET /healthz HTTP/1.1", "connection: close")


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/fine_tuning/jobs", "/healthz"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_body_of_a_request_that_offers_an_upgrade_is_not_run_as_a_request(
    gateway: Server, offer: str, path: str, *, is_chunked: bool
) -> None:
    body = _chunked(SMUGGLED) if is_chunked else SMUGGLED
    framing = "transfer-encoding: chunked" if is_chunked else f"content-length: {len(SMUGGLED)}"
    head = _lines(f"POST {path} HTTP/1.1", "Connection: Upgrade", f"Upgrade: {offer}", framing)
    for pieces in ([head + body + LAST], [head, body, LAST], [head + body[:9], body[9:] + LAST]):
        answers = _exchange(gateway, *pieces)
        statuses = _statuses(answers)
        assert statuses[0] in {401, 405}
        # Refused before its body was there, it closes the connection; else the next request is answered.
        assert statuses[1:] in ([], [200]), answers
        assert answers.count(b"connection: close") == 1


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_request_that_offers_h2c_as_the_jdk_does_is_answered_wherever_it_is_cut(
    gateway: Server, *, is_chunked: bool
) -> None:
    fields = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}]}
    whole = json.dumps(fields).encode()
    body = _chunked(whole) if is_chunked else whole
    head = _lines(
        "POST /v1/chat/completions HTTP/1.1",
        "Connection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        "Upgrade: h2c",
        "transfer-encoding: chunked" if is_chunked else f"Content-Length: {len(whole)}",
        f"Authorization: Bearer {gateway.owner_key}",
    )
    sent = head + body + LAST
    cuts = [*range(len(head) - 6, len(head) + 12), *range(1, len(sent), 23)]
    for cut in cuts:
        answers = _exchange(gateway, sent[:cut], sent[cut:])
        assert _statuses(answers) == [200, 200], (cut, answers)


def test_many_pipelined_offers_are_answered_each_for_itself(gateway: Server) -> None:
    offer = _lines(
        "POST /v1/models HTTP/1.1",
        "Connection: upgrade",
        "Upgrade: h2c",
        f"content-length: {len(SMUGGLED)}",
    )
    answers = _exchange(gateway, (offer + SMUGGLED) * 10 + LAST)
    assert _statuses(answers) == [401] * 10 + [200]


def test_connect_is_refused_and_the_connection_closed(gateway: Server) -> None:
    for lines in ((), ("connection: upgrade", "upgrade: h2c"), (f"content-length: {len(LAST)}",)):
        answers = _exchange(gateway, _lines("CONNECT x:80 HTTP/1.1", *lines) + LAST)
        assert _statuses(answers) == [400]
        assert b"CONNECT is not supported." in answers


def test_what_is_no_http_is_a_400_in_openais_shape_and_leaves_no_trace_in_the_log(
    gateway: Server,
) -> None:
    before = gateway.log()
    for sent in (b"\x16\x03\x01\x02\x00", _lines("GET / HTTP/1.1", "a b: c")):
        answers = _exchange(gateway, sent)
        assert _statuses(answers) == [400]
        error = json.loads(answers.partition(b"\r\n\r\n")[2])["error"]
        assert error["type"] == "invalid_request_error"
    assert gateway.log() == before


# It offers h2c with each request, as every client on the JDK's HttpClient does by default.
JAVA = """
import java.net.URI;
import java.net.http.*;
public class Ask {
  public static void main(String[] given) throws Exception {
    HttpClient client = HttpClient.newHttpClient();
    for (int i = 0; i < 3; i++) {
      HttpRequest request = HttpRequest.newBuilder(URI.create(given[0] + "/chat/completions"))
        .header("Authorization", "Bearer " + given[1])
        .POST(HttpRequest.BodyPublishers.ofString(given[2])).build();
      HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
      System.out.println(answer.statusCode() + " " + answer.version());
    }
  }
}
"""


def test_the_jdk_client_is_answered(gateway: Server, tmp_path: Path) -> None:
    java = shutil.which("java")
    if java is None:
        pytest.skip("there is no java")
    source = tmp_path / "Ask.java"
    source.write_text(JAVA)
    fields = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}]}
    asked = [gateway.url, gateway.owner_key, json.dumps(fields)]
    ran = subprocess.run(
        [java, str(source), *asked], capture_output=True, text=True, timeout=60, check=False
    )
    if "jdk.compiler" in ran.stderr:
        pytest.skip("this java cannot compile")
    assert ran.stdout.splitlines() == ["200 HTTP_1_1"] * 3, ran.stderr


def test_nothing_above_was_a_bug_of_the_server(gateway: Server) -> None:
    assert "Traceback" not in gateway.log(), gateway.log()

"""What an inference request meets on its short way: HTTP's odd forms, and every bound."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.fakes.upstream import FakeUpstream
from tests.support import servers
from tests.support.servers import Server, wait_until

BASE = "remote-base"
OTHER = "other-base"
MESSAGES = [{"role": "user", "content": "Hello"}]
CONNECTIONS_MAX = 40
PER_MODEL_MAX = 3
PER_ENGINE_MAX = 4
CLIENT_SECONDS = 1.0
ENGINE_SECONDS = 1.5
LATE_SECONDS = 30.0  # of a busy machine
OURS = ("x-request-id", "openai-version", "openai-processing-ms", "x-content-type-options")


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("hot") / "data"
    settings = {
        "connections_max": CONNECTIONS_MAX,
        "requests_per_model_max": PER_MODEL_MAX,
        "requests_per_engine_max": PER_ENGINE_MAX,
        "client_seconds": CLIENT_SECONDS,
        "engine_seconds": ENGINE_SECONDS,
    }
    with servers.serving(data, workers=1, settings=settings) as running:
        for name in (BASE, OTHER):
            added = running.cli("bases", "add", name, "--engine-url", upstream.url)
            assert added.returncode == 0, added.stderr
        yield running


def _request(key: str, *lines: str, **fields: object) -> bytes:
    body = json.dumps({"model": BASE, "messages": MESSAGES, **fields}).encode()
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {key}",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


class Answers:
    """Reads answers one by one from a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._reader = connection.makefile("rb")

    def next(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self._reader.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self._reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            assert name not in headers, f"{name} was sent twice"
            headers[name] = value
        if status == 100:
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(self._chunks())
        return status, headers, self._reader.read(int(headers["content-length"]))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._reader.readline(), 16):
            yield self._reader.read(size)
            self._reader.readline()
        self._reader.readline()

    def is_at_end(self) -> bool:
        return self._reader.read(1) == b""


def _code(body: bytes) -> object:
    return json.loads(body)["error"]["code"]


@contextmanager
def _streams(gateway: Server, count: int, model: str = BASE) -> Iterator[None]:
    """So many endless streams run."""
    with ExitStack() as open_ones:
        for _ in range(count):
            connection = open_ones.enter_context(gateway.connect())
            how = {"endless": True}
            connection.sendall(_request(gateway.owner_key, model=model, stream=True, fake=how))
            assert connection.recv(12) == b"HTTP/1.1 200"
        yield


def test_every_answer_has_its_headers_once_with_and_without_a_stream(gateway: Server) -> None:
    with gateway.connect() as connection:
        answers = Answers(connection)
        for stream in (False, True):
            connection.sendall(_request(gateway.owner_key, stream=stream))
            status, headers, _ = answers.next()
            assert status == 200
            assert set(OURS) <= set(headers)
            assert headers["openai-organization"] == servers.ORGANIZATION
            assert "date" in headers


def test_pipelined_requests_are_answered_in_order_whatever_way_they_go(gateway: Server) -> None:
    key = gateway.owner_key
    models = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    sent = [
        (_request(key), 200), (models, 200), (_request(key, stream=True), 200), (_request("no"), 401),
        (models, 200), (_request(key, model="unknown"), 404), (_request(key), 200),
    ]  # fmt: skip
    for cut in (10**6, 700, 97, 13):
        with gateway.connect() as connection:
            for request, status in sent:
                # One that is refused before its body is here ends the connection, so it comes in one piece.
                size = len(request) if status == 401 else cut
                for begin in range(0, len(request), size):
                    connection.sendall(request[begin : begin + size])
            answers = Answers(connection)
            assert [answers.next()[0] for _ in sent] == [status for _, status in sent]


def test_many_pipelined_refusals_are_all_given(gateway: Server) -> None:
    with gateway.connect() as connection:
        connection.sendall(_request("no") * 400)
        answers = Answers(connection)
        assert {answers.next()[0] for _ in range(400)} == {401}


def test_a_head_that_is_repeated_means_what_it_says_each_time(
    gateway: Server, upstream: FakeUpstream
) -> None:
    reader = gateway.make_key("reader")
    with gateway.connect() as connection:
        answers = Answers(connection)
        for round_ in range(6):
            for key, seed, status in ((gateway.owner_key, 7, 200), (reader, 10**round_, 200)):
                connection.sendall(_request(key, seed=seed))
                assert answers.next()[0] == status
                assert upstream.requests[-1].fields["seed"] == seed
            wrong = gateway.owner_key[:-1] + ("a" if gateway.owner_key[-1] != "a" else "b")
            connection.sendall(_request(wrong))
            assert answers.next()[0] == 401


def test_a_head_is_never_taken_for_the_one_behind_it(gateway: Server) -> None:
    """Two requests in one read: what the second one says is not learned of the first one's bytes."""
    first = _request("no", "x-a: 1")
    with gateway.connect() as connection:
        answers = Answers(connection)
        connection.sendall(first + _request(gateway.owner_key))
        assert [answers.next()[0], answers.next()[0]] == [401, 200]
        for _ in range(2):
            connection.sendall(first)
            assert answers.next()[0] == 401


def test_a_repeated_head_whose_body_comes_later_waits_for_it(gateway: Server) -> None:
    request = _request(gateway.owner_key)
    head, body = (
        request[: request.index(b"\r\n\r\n") + 4],
        request[request.index(b"\r\n\r\n") + 4 :],
    )
    with gateway.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = Answers(connection)
        for first in (request, head + body[:9], head, head[:20], request):
            connection.sendall(first)
            time.sleep(0.05)
            connection.sendall(request[len(first) :])
            assert answers.next()[0] == 200


def test_a_key_that_is_revoked_stops_on_a_kept_connection_at_once(gateway: Server) -> None:
    key = gateway.make_key("reader")
    with gateway.connect() as connection:
        answers = Answers(connection)
        for _ in range(3):
            connection.sendall(_request(key))
            assert answers.next()[0] == 200
        gateway.revoke_key(key)
        connection.sendall(_request(key))
        assert answers.next()[0] == 401


def test_who_expects_to_be_told_to_go_on_is_told_if_its_key_is_good(gateway: Server) -> None:
    for key, expected in ((gateway.owner_key, [100, 200]), ("no", [401])):
        request = _request(key, "Expect: 100-continue")
        head = request.index(b"\r\n\r\n") + 4
        with gateway.connect() as connection:
            answers = Answers(connection)
            connection.sendall(request[:head])
            assert answers.next()[0] == expected[0]
            if expected[1:]:
                connection.sendall(request[head:])
                assert answers.next()[0] == expected[1]


def test_who_does_not_keep_the_connection_gets_it_closed(gateway: Server) -> None:
    for request in (
        _request(gateway.owner_key, "Connection: close"),
        _request(gateway.owner_key).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        _request(gateway.owner_key, "Connection: close", stream=True),
    ):
        with gateway.connect() as connection:
            answers = Answers(connection)
            connection.sendall(request)
            status, headers, _ = answers.next()
            assert (status, headers["connection"]) == (200, "close")
            assert answers.is_at_end()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_a_405_that_says_which_is_right(gateway: Server, method: str) -> None:
    reply = gateway.request(method, "/v1/chat/completions?x=1", key=gateway.owner_key)
    assert (reply.status, reply.header("allow")) == (405, "POST")


def test_a_query_and_an_absolute_url_are_the_same_route(gateway: Server) -> None:
    for target in (b"/v1/chat/completions?x=1", b"http://x/v1/chat/completions"):
        request = _request(gateway.owner_key).replace(b"/v1/chat/completions", target, 1)
        with gateway.connect() as connection:
            connection.sendall(request)
            assert Answers(connection).next()[0] == 200


@pytest.mark.parametrize("sent", [b"P", b"POST /v1/chat/completions HTTP/1.1\r\nhost:"])
def test_a_head_that_does_not_come_is_a_408(gateway: Server, sent: bytes) -> None:
    with gateway.connect() as connection:
        connection.sendall(sent)
        answers = Answers(connection)
        status, headers, body = answers.next()
        assert (status, headers["connection"]) == (408, "close")
        assert _code(body) == "request_timeout"
        assert answers.is_at_end()


def test_a_head_that_comes_byte_by_byte_is_not_waited_for_longer(gateway: Server) -> None:
    began = time.monotonic()
    with gateway.connect() as connection:
        connection.settimeout(0.1)
        got = b""
        while not got:
            connection.sendall(
                b"GET / HTTP/1.1\r\n" if time.monotonic() - began < 0.1 else b"a: b\r\n"
            )
            try:
                got = connection.recv(12)
            except TimeoutError:
                assert time.monotonic() - began < CLIENT_SECONDS + LATE_SECONDS
    assert got == b"HTTP/1.1 408"


def test_a_body_that_does_not_come_is_a_408(gateway: Server) -> None:
    with gateway.connect() as connection:
        connection.sendall(_request(gateway.owner_key)[:-1])
        answers = Answers(connection)
        status, headers, body = answers.next()
        assert (status, headers["connection"]) == (408, "close")
        assert _code(body) == "request_timeout"
        assert answers.is_at_end()


def test_a_body_that_comes_slowly_but_comes_is_taken(gateway: Server) -> None:
    request = _request(gateway.owner_key)
    with gateway.connect() as connection:
        connection.sendall(request[:-4])
        for byte in request[-4:]:
            time.sleep(CLIENT_SECONDS * 0.6)
            connection.sendall(bytes([byte]))
        assert Answers(connection).next()[0] == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/fine_tuning/jobs"])
def test_a_body_that_comes_in_drips_is_not_waited_for_longer(gateway: Server, path: str) -> None:
    began = time.monotonic()
    request = _request(gateway.owner_key, messages=["x" * 100_000]).replace(
        b"/v1/chat/completions", path.encode()
    )
    with gateway.connect() as connection:
        connection.settimeout(CLIENT_SECONDS / 4)
        connection.sendall(request[:1000])
        sent, is_over = 1000, False
        while not is_over:
            try:
                connection.sendall(request[sent : sent + 1])
                sent += 1
                got = connection.recv(12)
                is_over = True
                assert got in {b"HTTP/1.1 408", b""}
            except TimeoutError:
                assert time.monotonic() - began < CLIENT_SECONDS * 4 + LATE_SECONDS
            except ConnectionError:
                is_over = True
    assert time.monotonic() - began > CLIENT_SECONDS * 4


def test_one_connection_too_many_is_told_so(gateway: Server) -> None:
    with ExitStack() as open_ones:
        connections = [
            open_ones.enter_context(gateway.connect()) for _ in range(CONNECTIONS_MAX + 1)
        ]
        status, headers, body = Answers(connections[-1]).next()
        assert (status, headers["retry-after"]) == (503, "1")
        assert _code(body) == "too_many_connections"
        connections[0].sendall(_request(gateway.owner_key))
        assert Answers(connections[0]).next()[0] == 200
    wait_until(lambda: gateway.get("/readyz").status == 200, "there is room again")


def test_a_model_with_enough_to_do_is_a_429_and_an_engine_a_503(gateway: Server) -> None:
    asked = {"model": BASE, "messages": MESSAGES}
    with _streams(gateway, PER_MODEL_MAX):
        busy = gateway.post("/v1/chat/completions", asked)
        assert (busy.status, busy.error["code"], busy.header("retry-after")) == (
            429,
            "model_busy",
            "1",
        )
        assert gateway.post("/v1/chat/completions", {**asked, "model": OTHER}).status == 200
        with _streams(gateway, PER_ENGINE_MAX - PER_MODEL_MAX, OTHER):
            full = gateway.post("/v1/chat/completions", {**asked, "model": OTHER})
            assert (full.status, full.error["code"]) == (503, "engine_busy")
            assert full.header("retry-after") == "1"
    wait_until(
        lambda: gateway.post("/v1/chat/completions", asked).status == 200, "there is room", 2
    )


def test_an_engine_that_falls_silent_is_given_up(gateway: Server, upstream: FakeUpstream) -> None:
    gone = len(upstream.gone_at)
    how = {"pause": ENGINE_SECONDS * 2.5}
    with gateway.connect() as connection:
        connection.sendall(_request(gateway.owner_key, stream=True, fake=how))
        status, _, body = Answers(connection).next()
    assert status == 200
    assert _code(body.split(b"data: ")[-1]) == "engine_timeout"
    wait_until(lambda: len(upstream.gone_at) > gone, "the engine saw that it was given up")


def test_a_status_that_is_none_is_an_engine_that_broke_off(gateway: Server) -> None:
    with gateway.connect() as connection:
        answers = Answers(connection)
        for status in (999, "099", "001", 200):
            how = {"status": status}
            connection.sendall(_request(gateway.owner_key, fake=how))
            found, _, body = answers.next()
            assert found == (200 if status == 200 else 503)
            # At once, not when the engine has been silent for too long.
            assert found == 200 or _code(body) == "engine_unavailable"


def test_nothing_above_was_a_bug_of_the_server(gateway: Server) -> None:
    assert "Traceback" not in gateway.log(), gateway.log()

"""How `tunewarden serve` stops: nothing is lost that can end in time, and what cannot is told."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.fakes.upstream import WORDS, FakeUpstream
from tests.support import servers, uploading
from tests.support.servers import Server, is_alive, wait_until
from tests.support.uploading import Field

from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind

BASE = "remote-base"
DELAY_SECONDS = 4.0
DRAIN_SECONDS = 3.0
# How late a bound may be met on a busy machine.
LATE_SECONDS = 15.0
FILES = 24
ENDLESS = {"fake": {"endless": True}}
# Seven words in more than half a second.
SHORT = {"fake": {"pause": 0.08}}


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


@contextlib.contextmanager
def _gateway(
    data: Path, upstream: FakeUpstream, *, workers: int = 1, **settings: object
) -> Iterator[Server]:
    with servers.serving(data, workers=workers, settings=settings) as server:
        with server.app.database.write() as tx:
            bases.add(
                tx,
                name=BASE,
                kind=BaseKind.REMOTE,
                location=upstream.url,
                engine_model=upstream.models[0],
                modules={},
            )
        yield server


class Stream:
    """A chat that is streamed by the SDK, read in a thread of its own."""

    def __init__(self, server: Server, how: dict[str, Any]) -> None:
        self.words: list[str] = []
        self.error: Exception | None = None
        self._client = server.client(max_retries=0)
        self._how = how
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_until(lambda: self.words, "the stream begins")

    def _read(self) -> None:
        try:
            for chunk in _ask(self._client, stream=True, extra_body=self._how):
                self.words += [one.delta.content or "" for one in chunk.choices]
        except openai.OpenAIError as error:
            self.error = error

    def ended(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def _ask(client: openai.OpenAI, **more: Any) -> Any:
    hello: Any = [{"role": "user", "content": "Hello"}]
    return client.chat.completions.create(model=BASE, messages=hello, **more)


def _is_refused(server: Server) -> bool:
    """Whether a new connection is refused; one that only waits in a queue fails the test."""
    try:
        with socket.create_connection(server.address, timeout=2) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            return connection.recv(1) == b""
    except TimeoutError:
        raise AssertionError("a connection was neither answered nor refused") from None
    except OSError:
        return True


def _signal(server: Server) -> float:
    server.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def _ends_well(server: Server, family: list[int], seconds: float) -> None:
    assert server.process.wait(timeout=seconds) == 0, server.log()
    assert [pid for pid in family if is_alive(pid)] == []
    assert "Traceback" not in server.log()
    assert "ERROR" not in server.log()


def test_a_server_is_not_ready_at_first_and_then_ends_its_streams_in_order(
    data: Path, upstream: FakeUpstream
) -> None:
    with _gateway(
        data, upstream, workers=2, drain_delay_seconds=DELAY_SECONDS, drain_seconds=DRAIN_SECONDS
    ) as server:
        family = server.processes()
        ready = server.get("/readyz")
        assert (ready.status, ready.json) == (
            200,
            {"status": "ok", "draining": False, "disk": "ok"},
        )
        idle = HTTPConnection(*server.address, timeout=5)
        idle.request("GET", "/healthz")
        idle.getresponse().read()
        long = Stream(server, ENDLESS)
        began = _signal(server)
        # Not ready on every worker, and still serving.
        wait_until(lambda: server.get("/readyz").status == 503, "it says so", DELAY_SECONDS)
        for _ in range(8):
            draining = server.get("/readyz")
            assert (draining.status, draining.json["draining"]) == (503, True)
            assert draining.header("connection") == "close"
        assert server.get("/healthz").status == 200
        told = _ask(server.client(max_retries=0))
        assert told.choices[0].message.content == "".join(WORDS)
        short = Stream(server, SHORT)
        idle.request("GET", "/healthz")  # A kept connection is served, and told to close.
        answer = idle.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        assert time.monotonic() - began < DELAY_SECONDS, "the machine was too slow to see the delay"
        # Then nobody is let in any more: refused, not left in a queue.
        wait_until(
            lambda: _is_refused(server), "connections are refused", DELAY_SECONDS + LATE_SECONDS
        )
        assert time.monotonic() - began > DELAY_SECONDS * 0.9
        assert not long.ended(0), "it may go on for a while"
        # A short stream ends whole, a long one with the error as an event.
        assert short.ended(DRAIN_SECONDS)
        assert ("".join(short.words), short.error) == ("".join(WORDS), None)
        assert long.ended(DRAIN_SECONDS + LATE_SECONDS)
        assert isinstance(long.error, openai.APIError), long.error
        assert not isinstance(long.error, openai.APIConnectionError), "its chunks end in order"
        assert (long.error.code, long.error.type) == ("server_shutting_down", "server_error")
        _ends_well(server, family, LATE_SECONDS + 5)
        assert time.monotonic() - began > DELAY_SECONDS + DRAIN_SECONDS * 0.9


def test_what_has_no_answer_yet_gets_a_503_that_says_try_again(
    data: Path, upstream: FakeUpstream
) -> None:
    with _gateway(data, upstream, drain_seconds=0.5) as server:
        family = server.processes()
        with server.connect() as waiting, server.connect() as half:
            # One waits for its engine, another has not sent its body.
            body = json.dumps({"model": BASE, "messages": [], "fake": {"silent": 60}}).encode()
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer"
                f" {server.owner_key}\r\ncontent-length: {len(body)}\r\n\r\n"
            ).encode()
            waiting.sendall(head + body)
            half.sendall(head + body[:5])
            wait_until(lambda: upstream.requests, "the engine is asked")
            _signal(server)
            for connection in (waiting, half):
                reply = connection.makefile("rb").read()
                assert reply.startswith(b"HTTP/1.1 503 "), reply
                assert b"\r\nconnection: close\r\n" in reply
                assert b"\r\nretry-after: 1\r\n" in reply
                assert b'"code":"server_shutting_down"' in reply
        _ends_well(server, family, LATE_SECONDS + 5)


@pytest.mark.parametrize("path", ["/v1/files", "/v1/models", "/v1/fine_tuning/jobs"])
def test_what_has_not_come_whole_gets_a_503_and_leaves_no_traceback(data: Path, path: str) -> None:
    names = ("base", "adapter_model") if path == "/v1/models" else ("purpose", "file")
    body = uploading.form(Field(names[0], b"user_data"), Field(names[1], b"x" * 1000, "half.bin"))
    with servers.serving(data, settings={"drain_seconds": 0.5}) as server:
        family = server.processes()
        with uploading.begin(server, path, body[:200], length=len(body)) as half:
            time.sleep(0.2)
            _signal(server)
            reply = half.makefile("rb").read()
        assert reply.startswith(b"HTTP/1.1 503 "), reply
        assert b'"code":"server_shutting_down"' in reply
        _ends_well(server, family, LATE_SECONDS + 5)
        assert "ASGI" not in server.log()


@pytest.mark.parametrize("delay", [0, 60])
def test_a_second_signal_ends_at_once(data: Path, upstream: FakeUpstream, delay: float) -> None:
    with _gateway(data, upstream, drain_delay_seconds=delay, drain_seconds=60) as server:
        family = server.processes()
        stream = Stream(server, ENDLESS)
        _signal(server)
        time.sleep(0.5)
        assert not stream.ended(0)
        _signal(server)
        _ends_well(server, family, 1 + LATE_SECONDS)
        assert stream.ended(1)
        assert getattr(stream.error, "code", None) == "server_shutting_down", stream.error


@pytest.mark.parametrize("hangs", ["worker", "fork_server"])
def test_a_process_that_hangs_keeps_no_connection_waiting(
    data: Path, upstream: FakeUpstream, hangs: str
) -> None:
    """Each worker has a copy of the listening socket: one that hangs would queue connections."""
    with _gateway(data, upstream, workers=2, drain_seconds=0) as server:
        family = server.processes()
        os.kill(server.running(f"tunewarden.server.{hangs}")[0], signal.SIGSTOP)
        _signal(server)
        wait_until(lambda: _is_refused(server), "connections are refused", LATE_SECONDS)
        if hangs == "worker":
            assert server.process.poll() is None, "it waits for the worker"
        _ends_well(server, family, 10)


def test_deletions_under_way_end_or_are_resumed_at_the_next_start(data: Path) -> None:
    with servers.serving(data) as server:
        create = server.client().files.create
        files = [create(file=b"x", purpose="user_data").id for _ in range(FILES)]
        answered: list[str] = []

        def delete(file_id: str) -> None:
            with contextlib.suppress(openai.APIConnectionError, openai.InternalServerError):
                server.client(max_retries=0).files.delete(file_id)
                answered.append(file_id)

        threads = [threading.Thread(target=delete, args=(one,)) for one in files]
        for thread in threads:
            thread.start()
        wait_until(lambda: answered, "the first is deleted")
        family = server.processes()
        _signal(server)
        _ends_well(server, family, 15)
        for thread in threads:
            thread.join()
        query = "SELECT artifacts.id FROM deletions JOIN artifacts ON artifacts.n = artifact_n"
        begun = {row[0] for row in _rows(server, query)}
        assert set(answered) <= begun
        server.start_again()
        unfinished = "SELECT 1 FROM deletions WHERE blobs_erased_at IS NULL"
        wait_until(lambda: not _rows(server, unfinished), "what was begun is finished")
        left = {one.id for one in server.client().files.list()}
        assert left == set(files) - begun


def _rows(server: Server, query: str) -> list[Any]:
    with server.app.database.read() as tx:
        return list(tx.rows(query))

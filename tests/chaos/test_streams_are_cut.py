"""What a deletion does to streams on real processes: I1, I2, I13, I14. The engine is a stand-in."""

import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.fake_engine_server import FakeEngineServer, serving
from tests.chaos.streams import Exchange, Watcher
from tests.support.servers import wait_until

from tunewarden.locks import ByteLocks
from tunewarden.registry.models import Model

WORKERS = 4
FENCE_SECONDS = 3.0
BOUND_SECONDS = 10.0
DELETES = 15


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngineServer]:
    data = tmp_path_factory.mktemp("streams") / "data"
    settings: dict[str, object] = {"fence_seconds": FENCE_SECONDS}
    with serving(data, workers=WORKERS, settings=settings) as running:
        yield running


@pytest.fixture
def watcher(server: FakeEngineServer) -> Iterator[Watcher]:
    watching = Watcher(server)
    yield watching
    watching.close()


def _deleted(watcher: Watcher, model: Model) -> Exchange:
    """Delete a model; return the exchange after its 200."""
    deletion = watcher.delete(model.id)
    watcher.watch(deletion, seconds=BOUND_SECONDS + 5)
    assert deletion.status == 200, bytes(deletion.received)
    return deletion


def _answered(watcher: Watcher, model: Model) -> Exchange:
    """Ask without a stream, on a connection that is kept; return when all was read."""
    asked = watcher.chat(model.id, stream=False, keep=True)
    while not asked.is_whole:
        watcher.turn(0.1)
    return asked


def _facts(server: FakeEngineServer, deletion: Exchange) -> dict[str, Any]:
    return server.facts(deletion.head["tunewarden-deletion"])


def _took(exchange: Exchange) -> float:
    assert exchange.ended_at is not None
    return exchange.ended_at - exchange.sent_at


def _waiting(exchange: Exchange) -> int:
    """Return how many bytes have come and were not read."""
    found = fcntl.ioctl(exchange.connection, termios.FIONREAD, struct.pack("i", 0))
    return int(struct.unpack("i", found)[0])


def _on_one_worker(server: FakeEngineServer, watcher: Watcher) -> tuple[Model, Exchange, int]:
    """Start an endless stream on a new model; return the worker that serves it, too."""
    model = server.make_model()
    stream = watcher.chat(model.id, chunks=10**9, pause=0.01)
    watcher.wait_for_chunks([stream], 1)
    (holder,) = server.holders(model.n)
    return model, stream, holder


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_nothing_of_a_deleted_model_comes_after_the_answer_and_other_streams_are_unharmed(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    kept = [server.make_model() for _ in range(2)]
    others = [watcher.chat(kept[n % 2].id, chunks=400, pause=0.005) for n in range(8)]
    watcher.wait_for_chunks(others, 1)
    workers = set(server.workers())
    content_after = late = 0
    for _ in range(DELETES):
        victim = server.make_model()
        streams = [watcher.chat(victim.id, chunks=10**9, pause=0.003) for _ in range(3)]
        watcher.wait_for_chunks(streams, 2)
        deletion = _deleted(watcher, victim)
        watcher.watch(*streams, seconds=5)
        for stream in streams:
            assert stream.error_code == "model_deleted", stream.events[-1]
            assert stream.is_whole
            content_after += stream.bytes_after(deletion.ended_at or 0)
            late += stream.last_content_at() > deletion.sent_at + FENCE_SECONDS
        reported = _facts(server, deletion)["fence"]
        assert isinstance(reported, tuple)
        assert {worker.how for worker in reported} == {"released"}
        assert len(reported) == WORKERS
    assert (content_after, late) == (0, 0)
    watcher.watch(*others, seconds=60)
    for other in others:
        assert other.chunks == 400
        assert other.events[-1] == b"data: [DONE]"
    assert set(server.workers()) == workers, "a worker died"
    print(f"streams: {DELETES} deletes, {3 * DELETES} streams cut, 0 bytes after the answer")


def test_the_watch_catches_workers_that_are_careless(data: Path) -> None:
    with serving(data, workers=1, careless=True) as careless:
        watcher = Watcher(careless)
        model = careless.make_model()
        stream = watcher.chat(model.id, chunks=10**9, pause=0.003)
        watcher.wait_for_chunks([stream], 2)
        deletion = _deleted(watcher, model)
        watcher.watch_for(0.2)
        after = stream.bytes_after(deletion.ended_at or 0)
        assert after > 0
        print(f"streams: careless workers sent {after} bytes after the answer")
        watcher.close()


def test_output_that_a_client_does_not_read_is_dropped(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    workers = set(server.workers())
    model = server.make_model()
    stream = watcher.chat(model.id, read=False, receive_bytes=4096, chunks=10**9, size=50_000)
    wait_until(lambda: server.holders(model.n), "the stream runs")
    watcher.watch_for(1.0)  # every buffer on the way fills
    deletion = _deleted(watcher, model)
    arrived = _waiting(stream)
    watcher.read_on(stream)
    watcher.watch(stream, seconds=10)
    assert 0 < len(stream.received) <= arrived, "bytes left the host after the answer"
    assert _took(deletion) < FENCE_SECONDS
    assert set(server.workers()) == workers, "a worker died because a client was slow"


@pytest.mark.parametrize("size", [30_000, 3_000_000])
def test_a_whole_answer_that_a_client_has_not_read_is_dropped(
    server: FakeEngineServer, watcher: Watcher, size: int
) -> None:
    """The worker is done with it, and with a small one the connection waits for its next request."""
    workers = set(server.workers())
    model = server.make_model()
    asked = watcher.chat(
        model.id, stream=False, read=False, keep=True, receive_bytes=4096, size=size, seconds=0.3
    )
    wait_until(lambda: server.holders(model.n), "it runs")
    watcher.watch_for(1.0)
    assert server.holders(model.n), "the guard was let go of before all had left"
    deletion = _deleted(watcher, model)
    arrived = _waiting(asked)
    watcher.read_on(asked)
    watcher.watch(asked, seconds=10)
    assert asked.reset
    assert 0 < len(asked.received) <= arrived < size, "bytes left the host after the answer"
    assert _took(deletion) < FENCE_SECONDS
    assert set(server.workers()) == workers, "a worker died because a client was slow"


def test_an_answer_that_was_read_costs_its_client_nothing_when_the_model_is_deleted(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    model = server.make_model()
    asked = _answered(watcher, model)
    # Its guard is still held, most likely: whether all has left is not asked after each answer.
    deletion = _deleted(watcher, model)
    assert _took(deletion) < FENCE_SECONDS
    watcher.watch_for(0.2)
    assert asked.ended_at is None


def test_a_guard_is_let_go_of_soon_after_the_answer_was_read(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    model = server.make_model()
    _answered(watcher, model)
    wait_until(lambda: not server.holders(model.n), "it is let go of", 2)


def test_a_client_that_reads_slowly_does_not_cost_the_worker_its_life(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    workers = set(server.workers())
    for size in (100, 1000, 10_000, 30_000):
        model = server.make_model()
        # As much as the buffers of the two kernels take, give or take a little: nothing is left to
        # the worker, and its last event finds no room.
        stream = watcher.chat(
            model.id, read=False, receive_bytes=4096, chunks=10**9, size=size, pause=0.0001
        )
        wait_until(lambda model=model: server.holders(model.n), "it runs")  # type: ignore[misc]  # mypy infers no lambda with a default
        watcher.watch_for(0.5)
        deletion = _deleted(watcher, model)
        assert _took(deletion) < FENCE_SECONDS
        watcher.read_on(stream)
        watcher.watch(stream, seconds=10)
    assert set(server.workers()) == workers, "a worker died because a client was slow"


def test_a_request_without_stream_that_is_cut_says_so_and_the_next_finds_nothing(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    model = server.make_model()
    asked = watcher.chat(model.id, stream=False, seconds=30)
    wait_until(lambda: server.holders(model.n), "it runs")
    _deleted(watcher, model)
    watcher.watch(asked, seconds=5)
    assert (asked.status, asked.error_code) == (404, "model_deleted")
    again = watcher.chat(model.id, stream=False)
    watcher.watch(again, seconds=5)
    assert (again.status, again.error_code) == (404, "model_not_found")


def test_an_engine_that_is_stopped_is_killed_and_the_answer_comes_within_the_bound(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    model, kept = server.make_model(), server.make_model()
    for one in (model, kept):
        warm = watcher.chat(one.id)
        watcher.watch(warm, seconds=10)
        assert warm.status == 200
    engine = server.engine_pid()
    with _stopped(engine):
        deletion = _deleted(watcher, model)
    assert _took(deletion) < BOUND_SECONDS
    evicted = _facts(server, deletion)["engines"]
    assert isinstance(evicted, tuple)
    assert [engine.how for engine in evicted] == ["restarted"]
    wait_until(server.has_engine, "another engine has the base")
    assert server.engine_pid() != engine
    again = watcher.chat(kept.id)
    watcher.watch(again, seconds=10)
    assert again.status == 200, "a model was not loaded again"


def test_a_worker_that_is_stopped_and_holds_the_model_is_killed(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    model, stream, holder = _on_one_worker(server, watcher)
    with _stopped(holder):
        deletion = _deleted(watcher, model)
        assert FENCE_SECONDS <= _took(deletion) < BOUND_SECONDS
    assert holder not in server.workers()
    watcher.watch(stream, seconds=5)
    assert stream.bytes_after(deletion.ended_at or 0) == 0
    assert not stream.is_whole
    fenced = _facts(server, deletion)["fence"]
    assert sorted(worker.how for worker in fenced) == ["killed"] + ["released"] * 3
    wait_until(lambda: len(server.workers()) == WORKERS, "another worker was started")


def test_a_worker_that_is_stopped_without_the_model_delays_nobody(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    model, _, holder = _on_one_worker(server, watcher)
    idle = next(pid for pid in server.workers() if pid != holder)
    with _stopped(idle):
        deletion = _deleted(watcher, model)
    assert _took(deletion) < FENCE_SECONDS
    assert idle in server.workers()


def test_a_holder_that_cannot_be_killed_makes_a_503_and_the_deletion_ends_by_itself(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    model = server.make_model()
    ended = subprocess.run([sys.executable, "-c", ""], check=True)
    assert ended.returncode == 0
    path = server.data / "run" / "immortal.worker"
    locks = ByteLocks(path)
    locks.write(json.dumps({"pid": 2**22 - 1, "start": "never"}).encode())
    assert locks.try_exclusive(0)
    assert locks.try_shared(model.n + 1)
    try:
        deletion = watcher.delete(model.id)
        watcher.watch(deletion, seconds=BOUND_SECONDS + 5)
        assert deletion.status == 503
        assert deletion.error_code == "deletion_in_progress"
        assert float(deletion.head["retry-after"]) > 0
        assert deletion.head["x-should-retry"] == "true"
        assert _took(deletion) < BOUND_SECONDS
        asked = watcher.chat(model.id)
        watcher.watch(asked, seconds=5)
        assert asked.error_code == "model_not_found", "it is committed: nobody begins"
    finally:
        path.unlink()
        locks.close()
    wait_until(lambda: _state(server, model) == "deleted", "the runner ends the deletion")
    retried = watcher.delete(model.id, retry=1)
    watcher.watch(retried, seconds=5)
    assert retried.status == 200
    assert _facts(server, retried)["artifact_id"] == model.id


def _state(server: FakeEngineServer, model: Model) -> str:
    row = server.app.database.peek("SELECT state FROM artifacts WHERE n = :n", n=model.n)
    assert row is not None
    return str(row[0])


def test_what_a_killed_worker_left_of_a_model_on_its_way_to_the_engine_is_gone_after_the_answer(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    engine = server.engine_pid()
    model = server.make_model()
    with _stopped(engine):
        asked = watcher.chat(model.id)
        wait_until(lambda: _plain_files(server), "the weights lie in scratch")
        (holder,) = server.holders(model.n)
        os.kill(holder, signal.SIGKILL)
        os.kill(engine, signal.SIGKILL)  # with the request to load it unread
        watcher.watch(asked, seconds=5)
    assert _plain_files(server), "the control: the killed worker left its plain weights"
    _deleted(watcher, model)
    wait_until(server.has_engine, "another engine has the base")
    assert _plain_files(server) == [], "plain weights of a deleted model are left"
    wait_until(lambda: len(server.workers()) == WORKERS, "another worker was started")


def _plain_files(server: FakeEngineServer) -> list[Path]:
    return list(server.scratch.glob("*/*/*.safetensors"))


def test_usage_is_written_beside_the_streams_and_not_in_their_way(
    server: FakeEngineServer, watcher: Watcher
) -> None:
    wait_until(server.has_engine, "the engine has the base")
    workers = set(server.workers())
    model = server.make_model()
    streams = [watcher.chat(model.id, chunks=200, pause=0.01) for _ in range(8)]
    watcher.wait_for_chunks(streams, 1)
    for _ in range(16):  # usage that every worker wants to write
        watcher.watch(watcher.chat(model.id, chunks=1), seconds=5)
    writer = server.app.database
    with writer.write() as tx:
        tx.run("UPDATE organizations SET name = name")
        began = time.monotonic()
        watcher.watch_for(2.0)
    for stream in streams:
        times = [began, *(at for at, _ in stream.reads if began < at < began + 2.0)]
        times.append(began + 2.0)
        gaps = [after - before for before, after in pairwise(times)]
        assert max(gaps) < 1.0, "a stream stood still while somebody else wrote to the database"
    watcher.watch(*streams, seconds=20)
    assert set(server.workers()) == workers


def test_who_ends_in_order_waits_for_a_client_that_has_not_read_its_answer(data: Path) -> None:
    with serving(data, workers=1) as server:
        watcher = Watcher(server)
        asked = watcher.chat(
            server.make_model().id,
            stream=False,
            read=False,
            keep=True,
            receive_bytes=4096,
            size=30_000,
        )
        wait_until(lambda: _waiting(asked) > 1000, "it is answered")
        (worker,) = server.workers()
        os.kill(worker, signal.SIGTERM)
        watcher.watch_for(0.5)
        watcher.read_on(asked)
        watcher.watch(asked, seconds=5)
        assert asked.is_whole
        watcher.close()


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_worker_that_is_killed_takes_along_what_its_clients_had_not_read(
    server: FakeEngineServer, watcher: Watcher, *, is_stream: bool
) -> None:
    model = server.make_model()
    asked = watcher.chat(
        model.id, stream=is_stream, read=False, keep=True, receive_bytes=4096, size=30_000
    )
    wait_until(lambda: _waiting(asked) > 1000, "it is answered")
    watcher.watch_for(0.3)
    (holder,) = server.holders(model.n)
    with _stopped(holder):
        _deleted(watcher, model)
    assert holder not in server.workers()
    arrived = _waiting(asked)
    watcher.read_on(asked)
    watcher.watch(asked, seconds=10)
    assert len(asked.received) <= arrived, "bytes left the host after the answer"
    wait_until(lambda: len(server.workers()) == WORKERS, "another worker was started")

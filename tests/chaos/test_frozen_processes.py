"""Processes of ours that are stopped (SIGSTOP) or dead: what the others do about it. I13."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.chaos.fake_engine_server import FakeEngineServer, serving
from tests.chaos.streams import Watcher
from tests.support import servers

from tunewarden.deletion.requests import Attempt, request_deletion
from tunewarden.identity import keys
from tunewarden.registry.artifacts import ArtifactKind

WORKERS = 2
BOUND_SECONDS = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngineServer]:
    data = tmp_path_factory.mktemp("frozen") / "data"
    with serving(data, workers=WORKERS) as running:
        yield running


@pytest.fixture
def watcher(server: FakeEngineServer) -> Iterator[Watcher]:
    watching = Watcher(server)
    yield watching
    watching.close()


def _child(server: FakeEngineServer, module: str) -> int:
    """The pid of a child of the supervisor by its module."""
    for pid in servers.descendants(server.process.pid):
        with contextlib.suppress(OSError):
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    raise AssertionError(f"{module} does not run")


def test_a_process_that_stays_stopped_is_killed_and_another_takes_its_place(
    server: FakeEngineServer,
) -> None:
    frozen = [_child(server, "tunewarden.server.runner"), next(iter(server.workers()))]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    assert all(servers.is_alive(pid) for pid in frozen), "a short stop is forgiven"
    servers.wait_until(lambda: not any(map(servers.is_alive, frozen)), "they are killed", 8)
    servers.wait_until(partial(_all_are_others, server, set(frozen)), "another worker was started")
    assert _child(server, "tunewarden.server.runner") not in frozen


def test_workers_that_died_are_forgotten(server: FakeEngineServer) -> None:
    for _ in range(2):
        dying = set(server.workers())
        for pid in dying:
            os.kill(pid, signal.SIGKILL)
        servers.wait_until(partial(_all_are_others, server, dying), "others were started")
    servers.wait_until(
        lambda: len(list((server.data / "run").glob("*.worker"))) == WORKERS, "files are swept"
    )


def _all_are_others(server: FakeEngineServer, than: set[int]) -> bool:
    """Whether all workers run again, none of `than` counted: a killed one may show for a moment."""
    return len(set(server.workers()) - than) == WORKERS


def test_an_engine_that_never_answers_does_not_keep_the_runner_from_deletions(data: Path) -> None:
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    model = servers.import_adapter(app, key)
    listen = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
        " s.listen(); time.sleep(1000)"
    )
    engine_socket = data / "run" / "engine.sock"
    with (
        _ended([sys.executable, "-c", listen, str(engine_socket)]),
        _ended([sys.executable, "-m", "tunewarden.server.runner", str(data), str(os.getpid())]),
    ):
        servers.wait_until(lambda: _has_client(engine_socket), "the runner asks the engine")
        caller = keys.authenticate(app.database, key, "req_test")
        size = app.open_log()[0].size()
        request_deletion(
            app.database, caller, ArtifactKind.MODEL, model.id, Attempt(), log_size=size
        )
        servers.wait_until(
            lambda: app.database.peek("SELECT 1 FROM deletions WHERE deleted_at IS NOT NULL"),
            "the runner ends the deletion",
            BOUND_SECONDS + 5,
        )


def _has_client(path: Path) -> bool:
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(str(path) in line for line in lines) >= 2


@contextlib.contextmanager
def _ended(command: list[str]) -> Iterator[None]:
    with subprocess.Popen(command, env=servers.environment({})) as process:
        try:
            yield
        finally:
            process.kill()


HOLDS = {
    "log/lock": "from tunewarden.transparency.disk import DirectoryLogDisk as D; lock = D().lock",
    "keyring/lock": "from tunewarden.artifacts.disk import LocalDisk as D; lock = D().exclusive",
    "run/deletions.locks": "from tunewarden.locks import exclusive as lock",
}


@pytest.mark.parametrize("lock", HOLDS)
def test_a_lock_that_a_frozen_process_holds_makes_a_503_and_the_deletion_ends_afterwards(
    lock: str, server: FakeEngineServer, watcher: Watcher
) -> None:
    model = server.make_model()
    code = (
        f"import os, pathlib, signal; {HOLDS[lock]}\n"
        f"with lock(pathlib.Path({str(server.data / lock)!r})):\n"
        " print('held', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            deletion = watcher.delete(model.id)
            watcher.watch(deletion, seconds=BOUND_SECONDS)
            assert (deletion.status, deletion.error_code) == (503, "deletion_in_progress")
            assert deletion.head["x-should-retry"] == "true"
            waited = (deletion.ended_at or 0) - deletion.sent_at
            assert 1.0 < waited < BOUND_SECONDS / 2
        finally:
            holder.kill()
    retried = watcher.delete(model.id, retry=1)
    watcher.watch(retried, seconds=BOUND_SECONDS)
    assert retried.status == 200
    assert server.facts(retried.head["tunewarden-deletion"])["artifact_id"] == model.id

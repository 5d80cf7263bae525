"""SIGKILL of `migrate openai retrain` at each piece of a request or an answer: never two jobs for one of the source.

Also where a request of the killed command reaches the server only after the next one has made the job.
"""

import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.chaos.test_killed_migrations import Killer
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.openai_source import OpenAI
from tests.support import migrations, servers
from tests.support.held_proxy import HeldProxy
from tests.support.migrations import BASE, Moving, WithFakeTrainer
from tests.support.servers import LOCAL_BASE, Server

from tunewarden.cli.migration_trainer import HttpTrainer

IS_LONG = bool(os.environ.get("TUNEWARDEN_TORTURE"))
STRIDE = 1 if IS_LONG else 3
# After the jobs are made, pieces are questions whether they have ended.
PIECES_MAX = 80 if IS_LONG else 40
MAP = ("--map", f"{BASE}={LOCAL_BASE}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("target") / "data"
    with servers.serving(data, workers=2, local_base=True, kind=WithFakeTrainer) as running:
        yield running


def _ready(server: Server, directory: Path) -> Moving:
    """Return a migration of a chain of two jobs, of this directory only, whose file is saved."""
    directory.mkdir()
    tag = f"{directory.parent.name}-{directory.name}"
    first, second = (f"ft:{BASE}:acme::{name}-{tag}" for name in ("first", "second"))
    has = OpenAI()
    has.models = [BASE, first, second]
    training = has.add_file(migrations.chats(12))
    has.add_job(first, BASE, training)
    has.add_job(second, first, training)
    with openai_source.serving(has):
        moving = migrations.moving(directory, has.url, settings=over_http(server))
        for step in ("inventory", "download"):
            assert moving.run(step).returncode == 0
    return moving


def _through(moving: Moving, url: str, server: Server) -> Moving:
    settings = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": server.owner_key}
    return Moving(moving.url, moving.key_file, moving.state, settings)


def _made(server: Server) -> Counter[str]:
    """Return how many jobs there are of each of the source."""
    jobs = list(server.client().fine_tuning.jobs.list())
    return Counter(one.metadata["source_job"] for one in jobs if one.metadata)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def _kill_at_each_piece(server: Server, tmp_path: Path, stride: int) -> int:
    """Kill it at one piece after the other; return how often it was killed. Fails if a job was made twice."""
    kills = 0
    for at in range(1, PIECES_MAX, stride):
        moving = _ready(server, tmp_path / str(at))
        killer = Killer(at)
        with CuttingProxy(server.address, on_piece=killer.on_piece) as proxy:
            process = killer.process = _through(moving, proxy.url, server).start("retrain", *MAP)
            kills += process.wait() != 0
            killer.process = None
            _end(process)
            # Without the state it is found at the server.
            if at % 2:
                (moving.state / "retrain.json").unlink(missing_ok=True)
            ran = moving.run("retrain", *MAP)
        assert ran.returncode == 0, ran.stderr
        assert "2 models are made again here, 0 are not." in ran.stderr
        jobs = moving.noted("retrain")["jobs"]
        assert isinstance(jobs, dict)
        assert [_made(server)[one] for one in jobs] == [1, 1], "a job was made twice"
    return kills


def test_wherever_it_is_killed_each_job_is_made_once(server: Server, tmp_path: Path) -> None:
    kills = _kill_at_each_piece(server, tmp_path, STRIDE)
    print(f"killed-retraining kills {kills} violations 0")
    assert kills >= 20 // STRIDE


class _HoldsNewJobs(HeldProxy):
    """Holds requests for a new job, also when the client has gone."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.has_held = threading.Event()
        self.hold()

    def _pass(self, source: socket.socket, target: socket.socket, is_held: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if b"POST /v1/fine_tuning/jobs " in piece:
                    self.has_held.set()
                    self._may_pass.wait()
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


def _let_a_request_come_late(server: Server, directory: Path) -> int:
    """Return how many jobs there are of the first job of the source."""
    moving = _ready(server, directory)
    with _HoldsNewJobs(server.address[1]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/v1"
        process = _through(moving, url, server).start("retrain", *MAP)
        assert proxy.has_held.wait(servers.WAIT_SECONDS)
        _end(process)
        assert moving.run("retrain", *MAP).returncode == 0
        proxy.release()
        time.sleep(1.0)
    jobs = moving.noted("retrain")["jobs"]
    assert isinstance(jobs, dict)
    return max(_made(server)[one] for one in jobs)


def test_a_request_that_comes_late_makes_no_second_job(server: Server, tmp_path: Path) -> None:
    assert _let_a_request_come_late(server, tmp_path / "late") == 1


def _with_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = HttpTrainer.make_job
    monkeypatch.setattr(
        HttpTrainer,
        "make_job",
        lambda self, fields, key: keyed(self, fields, f"{key} {time.monotonic()}"),
    )


def test_the_control_without_a_key_in_common_makes_it_twice(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_another_key(monkeypatch)
    assert _let_a_request_come_late(server, tmp_path / "late") == 2


def test_the_control_that_looks_for_nothing_makes_a_job_twice(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_another_key(monkeypatch)
    monkeypatch.setattr(HttpTrainer, "jobs_of", lambda self, source_job: [])
    with pytest.raises(AssertionError, match="made twice"):
        _kill_at_each_piece(server, tmp_path, 1)

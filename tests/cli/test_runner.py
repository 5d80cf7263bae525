"""The background runner, alone with a data directory that others left unfinished."""

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from tests.fakes.clock import HandClock
from tests.support import servers
from tests.support.servers import wait_until

from tunewarden.deletion.protocol import ORDER
from tunewarden.deletion.requests import Attempt, request_deletion
from tunewarden.deletion.retention import expiry_pause
from tunewarden.identity import keys
from tunewarden.registry import file_rows
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.files import Owner
from tunewarden.server import runner

# A runner that is told to stop while one of its threads works, and goes on to work for a moment.
SLOW_ENDING = """
import os, signal, sys, time
from tunewarden.server import runner
def keep_room(app, stop):
    os.kill(os.getpid(), signal.SIGTERM)
    stop.wait()
    time.sleep(0.3)
    print("the thread has ended", flush=True)
runner._keep_room = keep_room
runner.main(*sys.argv[1:])
print("the runner has ended", flush=True)
"""


@contextlib.contextmanager
def _runner(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tunewarden.server.runner", str(data), str(os.getpid())]
    with subprocess.Popen(command, env=servers.environment({})) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextlib.contextmanager
def _engine_that_is_busy(path: Path) -> Iterator[list[socket.socket]]:
    """Accepts, and answers nothing: as an engine that loads a large base."""
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    waiting.append(listening.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield waiting
        listening.shutdown(socket.SHUT_RDWR)
    for connection in waiting:
        connection.close()


def test_what_is_left_of_a_deletion_does_not_wait_for_a_busy_engine(data: Path) -> None:
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    caller = keys.authenticate(app.database, (data / "owner.key").read_text().strip(), "req")
    model = servers.import_adapter(app, (data / "owner.key").read_text().strip())
    app.open_log()  # makes it, as the first deletion does before its commit point
    with _engine_that_is_busy(app.config.engine_socket) as waiting, _runner(data):
        wait_until(lambda: waiting, "the runner asks the engine for its bases")
        # The commit point only, as by a worker that was killed right after it.
        request_deletion(app.database, caller, ArtifactKind.MODEL, model.id, Attempt(), log_size=0)
        app.config.engine_socket.unlink()  # D5 then finds no engine; the runner still waits for it
        unfinished = "SELECT 1 FROM deletions WHERE blobs_erased_at IS NULL"
        wait_until(lambda: app.database.peek(unfinished) is None, "the deletion is finished")
        assert app.blobs.names(f"{model.internal_id}/") == []


def test_blobs_are_erased_although_the_clock_was_set_back(data: Path) -> None:
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    caller = keys.authenticate(app.database, key, "req")
    model = servers.import_adapter(app, key)
    app.open_log()
    request_deletion(app.database, caller, ArtifactKind.MODEL, model.id, Attempt(), log_size=0)
    assert runner._last_step(app) is not ORDER[-1], "more may come in: erasing waits"
    before = HandClock()  # stands long before the request
    assert runner._last_step(dataclasses.replace(app, clock=before)) is ORDER[-1]


def test_nothing_expires_after_a_long_absence_until_an_operator_says_so(data: Path) -> None:
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    caller = keys.authenticate(app.database, (data / "owner.key").read_text().strip(), "req")
    owner = Owner(caller.organization_id, caller.project_id, caller.key_id)
    file = app.files.store(owner, filename="a.txt", purpose="user_data", reader=BytesIO(b"x"))
    with app.database.write() as tx:
        tx.run("UPDATE files SET expires_at = 1 WHERE n = :n", n=file.n)
        before = tx.now_micros - 2 * expiry_pause.JUMP_MICROS
        tx.run("INSERT INTO clock_seen VALUES (1, :at, NULL, 0, :at)", at=before)
    with _runner(data):
        wait_until(lambda: expiry_pause.pause_of(app.database), "expiry is paused")
        doctor = servers.run_cli("doctor", "--data", str(data))
        assert "tunewarden expiry resume" in doctor.stdout + doctor.stderr
        assert file_rows.of_number(app.database, file.n) is not None
        assert servers.run_cli("expiry", "resume", "--data", str(data)).returncode == 0
        wait_until(
            lambda: file_rows.of_number(app.database, file.n) is None, "the file has expired"
        )


def test_it_ends_after_its_threads(data: Path) -> None:
    """One that still works on its way out would be unwound by force, which can abort the process."""
    servers.prepare_local_base(data)
    slow = subprocess.run(
        [sys.executable, "-c", SLOW_ENDING, str(data), str(os.getpid())],
        env=servers.environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (slow.returncode, slow.stderr) == (0, "")
    assert slow.stdout == "the thread has ended\nthe runner has ended\n"

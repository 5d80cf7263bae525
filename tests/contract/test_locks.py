"""Lock files that are waited for: the kernel's queue, its bound, and a holder that dies."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
from tests.lab.recording_vfs import RecordingVfs
from tests.support import servers

from tunewarden import locks
from tunewarden.clock import SystemClock
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.errors import Error, Kind

HOLD = (
    "import pathlib, sys; from tunewarden import locks\n"
    "held = locks.take(pathlib.Path(sys.argv[1]), 30)\n"
    "print('held', flush=True); sys.stdin.read(); print('end', flush=True); locks.give_back(held)"
)


def waiting(path: Path) -> int:
    """Return how many stand in the kernel's queue for a file: proc_locks(5), `->`."""
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and f":{path.stat().st_ino} " in line for line in lines)


def _stands(path: Path, count: int) -> None:
    servers.wait_until(lambda: waiting(path) == count, f"{count} wait", 20)


@contextmanager
def _holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def _thread(work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_who_waits_gets_its_turn_in_the_order_of_coming_in_whatever_process(path: Path) -> None:
    order: list[str] = []

    def waits() -> None:
        with locks.exclusive(path, 30):
            order.append("thread")

    held = locks.take(path)
    with _holder(path) as first:
        _stands(path, 1)
        with _thread(waits):
            _stands(path, 2)
            with _holder(path) as last:
                _stands(path, 3)
                locks.give_back(held)
                assert _line(first) == "held\n"
                assert order == []
                assert waiting(path) == 2
                first.communicate()
                assert _line(last) == "held\n"
                assert order == ["thread"]
                last.communicate()
    assert waiting(path) == 0


def test_a_holder_that_is_killed_lets_the_next_one_in(path: Path) -> None:
    with _holder(path) as holder:
        assert _line(holder) == "held\n"
        got: list[locks.ByteLocks] = []
        with _thread(lambda: got.append(locks.take(path, 30))):
            _stands(path, 1)
            os.kill(holder.pid, signal.SIGKILL)
        locks.give_back(got[0])


def test_who_gives_up_leaves_the_queue_to_the_others(path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    held = locks.take(path)
    for _ in range(5):
        with pytest.raises(Error) as refused:
            locks.take(path, 0.01)
        assert refused.value.kind is Kind.UNAVAILABLE
    locks.give_back(held)
    # Their turns come, and nobody takes them.
    servers.wait_until(lambda: waiting(path) == 0, "the queue is empty", 20)
    locks.give_back(locks.take(path, 20))
    servers.wait_until(
        lambda: len(list(descriptors.iterdir())) <= before, "their files are closed", 20
    )


def test_every_turn_is_taken_once_and_alone(path: Path) -> None:
    inside, turns = [0], [0]

    def works() -> None:
        for number in range(50):
            try:
                with locks.exclusive(path, (30, 0.0001)[number % 2]):
                    inside[0] += 1
                    assert inside[0] == 1
                    turns[0] += 1
                    inside[0] -= 1
            except Error:
                turns[0] += 1  # gave up: the next one must get it all the same

    threads = [threading.Thread(target=works) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns[0] == 300


WRITE = """
import pathlib, sys
from tunewarden.clock import SystemClock
from tunewarden.db.sqlite import SqliteDatabase
database = SqliteDatabase(pathlib.Path(sys.argv[1]), SystemClock(), migrate=False)
met = []
database._connection().set_busy_handler(lambda tries: met.append(tries) or True)
print('ready', flush=True); sys.stdin.readline()
for _ in range(40):
    with database.write() as tx:
        tx.run("INSERT INTO keyring_seen VALUES (1, 1) ON CONFLICT DO UPDATE SET generation = generation + 1")
print(len(met), flush=True)
"""
UNQUEUED = (
    "from tunewarden import locks\nlocks.take = lambda *_: None\nlocks.give_back = lambda _: None\n"
)


def _met(path: Path, code: str) -> int:
    """Let three processes write at once; return how often one of them met SQLite's lock held."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for writer in writers:
        assert _line(writer) == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    return sum(int(writer.communicate()[0]) for writer in writers)


def test_processes_that_write_at_once_queue_and_never_sleep_on_sqlites_lock(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    database = SqliteDatabase(path, SystemClock(), migrate=True)
    assert _met(path, WRITE) == 0
    # The control: without the queue they meet it, and SQLite's lock alone keeps them apart.
    assert _met(path, UNQUEUED + WRITE) > 0
    assert database.peek("SELECT generation FROM keyring_seen") == (240,)


def test_a_writer_that_stands_behind_a_stopped_one_is_told_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "db.sqlite"
    database = SqliteDatabase(path, SystemClock(), migrate=True)
    monkeypatch.setattr("tunewarden.db.sqlite_transactions.BUSY_SECONDS", 0.1)
    with (
        locks.exclusive(tmp_path / "db.sqlite-writers"),
        pytest.raises(Error) as refused,
        database.write(),
    ):
        pass
    assert (refused.value.kind, refused.value.retry_after_seconds) == (Kind.UNAVAILABLE, 1)
    with database.write() as tx:
        assert isinstance(tx.row("SELECT 1"), tuple)


def test_a_write_beside_the_queue_still_waits_for_sqlites_own_lock(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    database = SqliteDatabase(path, SystemClock(), migrate=True)
    stranger = apsw.Connection(str(path))
    stranger.execute("BEGIN IMMEDIATE")
    met = threading.Event()
    done: list[int] = []

    def busy(_: int) -> bool:
        met.set()
        return True

    def writes() -> None:
        database._connection().set_busy_handler(busy)
        with database.write() as tx:
            done.append(tx.run("INSERT INTO keyring_seen VALUES (1, 1)"))

    with _thread(writes):
        assert met.wait(20)
        assert done == []
        stranger.execute("COMMIT")
    assert done == [1]
    stranger.close()


def test_a_write_that_need_not_survive_is_synced_by_the_next_one_that_must(tmp_path: Path) -> None:
    vfs = RecordingVfs("unsynced")
    path = tmp_path / "db.sqlite"
    database = SqliteDatabase(path, SystemClock(), migrate=True, vfs=vfs.name)
    other = SqliteDatabase(path, SystemClock(), migrate=False)
    insert = "INSERT INTO keyring_seen VALUES (:shard, 1)"

    def kinds(shard: int, *, survives: bool) -> list[str]:
        vfs.ops.clear()
        with database.write(survives=survives) as tx:
            tx.run(insert, shard=shard)
        assert other.peek("SELECT MAX(shard) FROM keyring_seen") == (shard,)
        return [op.kind for op in vfs.ops if op.name.endswith("-wal")]

    for shard in (1, 3):
        assert set(kinds(shard, survives=False)) == {"write"}
        assert kinds(shard + 1, survives=True)[-1] == "sync"
    with contextlib.suppress(ZeroDivisionError), database.write(survives=False) as tx:
        tx.run(insert, shard=9)
        raise ZeroDivisionError
    assert kinds(5, survives=True)[-1] == "sync"

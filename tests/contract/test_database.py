"""What every database keeps to. SQLite is the only one so far."""

import contextlib
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest

from tunewarden.clock import SystemClock
from tunewarden.db.database import Database
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.errors import Error, Kind

GOLDEN = Path(__file__).parent.parent / "golden" / "schema.sql"
STRESS_SECONDS = 3.0
WRITERS_KILLED = 8
SEED = 20261122


class MovingClock(SystemClock):
    """Each look at it is a minute later."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(minutes=1)
        return self._now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.sqlite"


@pytest.fixture
def database(path: Path) -> Database:
    opened = SqliteDatabase(path, MovingClock(), migrate=True)
    with opened.write() as tx:
        tx.run("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    return opened


def _names(database: Database) -> list[str]:
    with database.read() as tx:
        return [row[0] for row in tx.rows("SELECT name FROM things ORDER BY id")]


def _write(database: Database, *statements: str, then: Callable[[], object] = bool) -> None:
    with database.write() as tx:
        for sql in statements:
            tx.run(sql)
        then()


def test_now_does_not_move_in_a_transaction(database: Database) -> None:
    with database.write() as tx:
        first, micros = tx.now, tx.now_micros
        tx.run("INSERT INTO things (name) VALUES ('x')")
        assert (tx.now, tx.now_micros) == (first, micros)
        assert first.tzinfo is UTC
        assert micros == int(first.timestamp() * 1_000_000)
    with database.read() as tx:
        assert tx.now > first


def test_a_transaction_that_raises_changes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        _write(database, "INSERT INTO things (name) VALUES ('lost')", then=lambda: 1 // 0)
    assert _names(database) == []
    with database.write() as tx:
        tx.run("INSERT INTO things (name) VALUES ('kept')")
    assert _names(database) == ["kept"]


def test_a_statement_that_fails_in_a_transaction_rolls_it_back(database: Database) -> None:
    lost = "INSERT INTO things (name) VALUES ('lost')"
    with pytest.raises(apsw.Error):
        _write(database, lost, "INSERT INTO nothing VALUES (1)")
    assert _names(database) == []


def test_run_tells_how_many_rows_it_changed(database: Database) -> None:
    with database.write() as tx:
        assert tx.run("INSERT INTO things (name) VALUES ('a'), ('b')") == 2
        assert tx.run("UPDATE things SET name = 'c' WHERE name = :name", name="nobody") == 0
        assert tx.run("UPDATE things SET name = 'c'") == 2
        assert tx.run("DELETE FROM things WHERE id = :id", id=1) == 1


def test_a_read_sees_one_moment(database: Database, path: Path) -> None:
    other = SqliteDatabase(path, SystemClock(), migrate=False)
    with database.read() as tx:
        assert tx.rows("SELECT * FROM things") == []
        done = threading.Thread(target=lambda: _insert(other, "new"))
        done.start()
        done.join()
        assert tx.rows("SELECT * FROM things") == []
    assert _names(database) == ["new"]


def _insert(database: Database, name: str) -> None:
    with database.write() as tx:
        tx.run("INSERT INTO things (name) VALUES (:name)", name=name)


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE things; --",
        '"',
        "\\",
        "\x00a\x00",
        "\u2028\U0001f600",
        ":name",
        "?1",
        "x" * 10**6,
    ],
)
def test_parameters_are_never_read_as_sql(database: Database, text: str) -> None:
    _insert(database, text)
    assert _names(database) == [text]
    assert database.peek("SELECT name FROM things WHERE name = :name", name=text) == (text,)
    assert database.peek("SELECT id FROM things WHERE name = :name", name=text + "x") is None


def test_writers_of_many_threads_take_turns(database: Database) -> None:
    def count_up() -> None:
        for _ in range(50):
            with database.write() as tx:
                row = tx.row("SELECT COUNT(*) FROM things")
                assert row is not None
                tx.run("INSERT INTO things (id, name) VALUES (:id, 'x')", id=row[0] + 1)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.peek("SELECT COUNT(*), MAX(id) FROM things") == (200, 200)


COUNT_UP = """
import sys, time
from pathlib import Path
from tunewarden.clock import SystemClock
from tunewarden.db.sqlite import SqliteDatabase
database = SqliteDatabase(Path(sys.argv[1]), SystemClock(), migrate=False)
deadline = time.monotonic() + float(sys.argv[2])
done = 0
while time.monotonic() < deadline:
    with database.write() as tx:
        tx.run("UPDATE things SET id = id + 1")
        value = tx.row("SELECT id FROM things")[0]
    done += 1
    # Only now, after the commit, is it said.
    print(value, flush=True)
print("done", done, flush=True)
"""


def test_writers_of_many_processes_take_turns(database: Database, path: Path) -> None:
    with database.write() as tx:
        tx.run("INSERT INTO things (id, name) VALUES (0, 'counter')")
    command = [sys.executable, "-c", COUNT_UP, str(path), "1"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    done = sum(int(process.communicate()[0].split()[-1]) for process in running)
    print(f"{done} commits by 3 processes")
    assert done > 10
    assert database.peek("SELECT id FROM things") == (done,)


def test_a_peek_is_never_older_than_another_processs_commit(database: Database, path: Path) -> None:
    with database.write() as tx:
        tx.run("INSERT INTO things (id, name) VALUES (0, 'counter')")
    stop = threading.Event()
    threading.Thread(target=_peek_until, args=(database, stop)).start()
    command = [sys.executable, "-c", COUNT_UP, str(path), str(STRESS_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        commits = stale = 0
        while not (line := process.stdout.readline()).startswith("done"):
            row = database.peek("SELECT id FROM things")
            assert row is not None
            stale += row[0] < int(line)
            commits += 1
    stop.set()
    print(f"{commits} commits, {stale} stale peeks")
    assert commits > 20
    assert stale == 0


@pytest.mark.parametrize("kept_for_ever", [False, True])
def test_what_is_kept_under_a_stamp_is_never_older_than_another_processs_commit(
    database: Database, path: Path, *, kept_for_ever: bool
) -> None:
    """Writers are killed in the middle, over and over. The control believes that no stamp moves."""
    with database.write() as tx:
        tx.run("INSERT INTO things (id, name) VALUES (0, 'counter')")
    kept: tuple[object, int] = None, 0
    numbers = random.Random(SEED)
    commits = reads = stale = 0
    for _ in range(WRITERS_KILLED):
        command = [sys.executable, "-c", COUNT_UP, str(path), "60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            killed_after = numbers.randrange(1, 400)
            for count, line in enumerate(process.stdout):
                if count == killed_after:
                    process.kill()
                if not line.endswith("\n"):
                    break  # It was killed while it wrote this.
                commits += 1
                for _ in range(2):
                    stamp = "always" if kept_for_ever else database.stamp()
                    if stamp != kept[0]:
                        row = database.peek("SELECT id FROM things")
                        assert row is not None
                        kept = stamp, row[0]
                        reads += 1
                    stale += kept[1] < int(line)
    print(
        f"seed {SEED}: {commits} commits, {WRITERS_KILLED} writers killed, {reads} reads, {stale} stale"
    )
    assert 0 < reads < 2 * commits
    assert (stale > 0) is kept_for_ever


def _peek_until(database: Database, stop: threading.Event) -> None:
    while not stop.is_set():
        database.peek("SELECT id FROM things")


def test_the_stamp_moves_with_each_commit_and_only_then(database: Database, path: Path) -> None:
    other = SqliteDatabase(path, SystemClock(), migrate=False)
    stamps = [database.stamp()]
    for writer in (other, database, other):
        database.peek("SELECT 1")
        assert database.stamp() == other.stamp() == stamps[-1]
        with contextlib.suppress(ZeroDivisionError), writer.write() as tx:
            tx.run("INSERT INTO things (id, name) VALUES (99, 'never')")
            raise ZeroDivisionError
        assert database.stamp() == stamps[-1]
        _insert(writer, f"thing {len(stamps)}")
        assert database.stamp() not in stamps
        stamps.append(database.stamp())


def test_a_database_behind_a_link_has_the_same_stamp(database: Database, path: Path) -> None:
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    linked = SqliteDatabase(link, SystemClock(), migrate=False)
    before = linked.stamp()
    _insert(database, "x")
    assert before != linked.stamp() == database.stamp()


def test_a_writer_that_waits_too_long_is_told_to_try_again(database: Database, path: Path) -> None:
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    impatient = SqliteDatabase(path, SystemClock(), migrate=False)
    impatient._connection().set_busy_timeout(50)  # the product waits longer
    with pytest.raises(Error) as caught, impatient.write():
        pass
    holder.execute("ROLLBACK")
    holder.close()
    assert caught.value.kind is Kind.UNAVAILABLE
    assert caught.value.retry_after_seconds


def test_a_full_disk_is_unavailable_and_changes_nothing(database: Database, path: Path) -> None:
    full = SqliteDatabase(path, SystemClock(), migrate=False)
    pages = full.peek("PRAGMA page_count")
    assert pages is not None
    full.peek(f"PRAGMA max_page_count = {pages[0]}")
    large = "INSERT INTO things (name) VALUES (printf('%.5000c', 'x'))"
    with pytest.raises(Error) as caught:
        _write(full, *[large] * 100)
    assert caught.value.kind is Kind.UNAVAILABLE
    assert _names(database) == []


def test_pages_come_in_order_and_whole(database: Database) -> None:
    with database.write() as tx:
        for n in range(1, 26):
            tx.run("INSERT INTO things VALUES (:n, 'x')", n=n)
    sql = "SELECT name, id FROM things WHERE id > COALESCE(:after, 0) ORDER BY id LIMIT :size"
    for size, lengths in ((10, [10, 10, 5]), (25, [25]), (5, [5] * 5), (100, [25])):
        found = list(database.pages(sql, size=size))
        assert [len(page) for page in found] == lengths
        assert [row[1] for page in found for row in page] == list(range(1, 26))
    assert list(database.pages(sql.replace("things", "users"), size=5)) == []


def test_pages_take_flat_memory(database: Database) -> None:
    with database.write() as tx:
        tx.run(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)"
            " INSERT INTO things SELECT i, printf('%.500c', 'x') FROM n"
        )
    sql = "SELECT name, id FROM things WHERE id > COALESCE(:after, 0) ORDER BY id LIMIT :size"
    tracemalloc.start()
    count = sum(len(page) for page in database.pages(sql, size=500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{count} rows of 500 bytes in {peak / 1e6:.1f} MB")
    assert count == 50_000
    assert peak < 4_000_000


def test_the_migrations_make_the_golden_schema(path: Path, request: pytest.FixtureRequest) -> None:
    database = SqliteDatabase(path, SystemClock(), migrate=True)
    with database.read() as tx:
        rows = tx.rows(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
            " ORDER BY type DESC, name"
        )
    schema = "".join(f"{row[0]};\n\n" for row in rows)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(schema, "utf-8")
    assert schema == GOLDEN.read_text("utf-8")


def test_migrating_again_changes_nothing(path: Path) -> None:
    SqliteDatabase(path, SystemClock(), migrate=True)
    database = SqliteDatabase(path, SystemClock(), migrate=True)
    with database.read() as tx:
        versions = [row[0] for row in tx.rows("SELECT version FROM migrations ORDER BY version")]
    assert versions == list(range(1, len(versions) + 1))


@pytest.mark.parametrize("migrate", [True, False])
def test_a_newer_database_is_refused_and_left_alone(path: Path, migrate: bool) -> None:
    database = SqliteDatabase(path, SystemClock(), migrate=True)
    with database.write() as tx:
        tx.run("INSERT INTO migrations VALUES (999, 'from the future', 0)")
    before = path.read_bytes()
    with pytest.raises(Error) as caught:
        SqliteDatabase(path, SystemClock(), migrate=migrate)
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "Start" in caught.value.message
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_unavailable(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Error) as caught:
        SqliteDatabase(path, SystemClock(), migrate=True)
    assert caught.value.kind is Kind.UNAVAILABLE


def test_foreign_keys_are_enforced_and_commits_are_durable(database: Database) -> None:
    assert database.peek("PRAGMA foreign_keys") == (1,)
    assert database.peek("PRAGMA synchronous") == (2,)
    assert database.peek("PRAGMA journal_mode") == ("wal",)
    with pytest.raises(apsw.ConstraintError), database.write() as tx:
        tx.run("INSERT INTO blobs VALUES ('x', 999, 0, 1, 1, NULL)")


def test_a_rollback_lasts_only_for_its_transaction(database: Database) -> None:
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(ZeroDivisionError), database.write():
            raise ZeroDivisionError
    _insert(database, "x")
    assert time.monotonic() - began < 5

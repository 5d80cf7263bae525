"""SQLite, beside what `test_database.py` asks of every database: its processes, its files, its schema."""

import random
import subprocess
import sys
import threading
from importlib import resources
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.sqlite"


@pytest.fixture
def database(path: Path) -> Database:
    opened = SqliteDatabase(path, SystemClock(), migrate=True)
    with opened.write() as tx:
        tx.run("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    return opened


def _write(database: Database, *statements: str) -> None:
    with database.write() as tx:
        for sql in statements:
            tx.run(sql)


def test_a_statement_that_fails_in_a_transaction_rolls_it_back(database: Database) -> None:
    lost = "INSERT INTO things (name) VALUES ('lost')"
    with pytest.raises(apsw.Error):
        _write(database, lost, "INSERT INTO nothing VALUES (1)")
    assert database.peek("SELECT 1 FROM things") is None


def test_writers_of_many_processes_take_turns(database: Database, path: Path) -> None:
    with database.write() as tx:
        tx.run("INSERT INTO things (id, name) VALUES (0, 'counter')")
    command = [sys.executable, "-c", COUNT_UP, str(path), "1"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    done = sum(int(process.communicate()[0].split()[-1]) for process in running)
    print(f"{done} commits by 3 processes")
    assert done > 10
    assert database.peek("SELECT id FROM things") == (done,)


@pytest.mark.long
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


def test_a_database_behind_a_link_has_the_same_stamp(database: Database, path: Path) -> None:
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    linked = SqliteDatabase(link, SystemClock(), migrate=False)
    before = linked.stamp()
    with database.write() as tx:
        tx.run("INSERT INTO things (name) VALUES ('x')")
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


def test_a_full_disk_is_an_error_and_changes_nothing(database: Database, path: Path) -> None:
    full = SqliteDatabase(path, SystemClock(), migrate=False)
    pages = full.peek("PRAGMA page_count")
    assert pages is not None
    full.peek(f"PRAGMA max_page_count = {pages[0]}")
    with pytest.raises(Error) as caught:
        _write(full, *["INSERT INTO things (name) VALUES (printf('%.5000c', 'x'))"] * 100)
    assert caught.value.kind is Kind.STORAGE_FULL
    assert database.peek("SELECT 1 FROM things") is None


def test_the_migrations_make_the_golden_schema(path: Path, request: pytest.FixtureRequest) -> None:
    database = SqliteDatabase(path, SystemClock(), migrate=True)
    with database.read() as tx:
        rows = tx.rows(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
            " ORDER BY type = 'trigger', type DESC, name"
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
    migrations = resources.files("tunewarden.db") / "migrations"
    named = [one.name for one in migrations.iterdir() if one.name.endswith(".sql")]
    assert versions == sorted(int(name[:4]) for name in named)


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


def test_what_is_deleted_or_replaced_is_not_in_a_copy(database: Database, path: Path) -> None:
    words = "canary-of-a-removed-person"
    with database.write() as tx:
        for n in range(50):
            tx.run(
                "INSERT INTO organizations (id, name, created_at) VALUES (:id, :name, 0)",
                id=f"org_{n}",
                name=f"{words}-{n}",
            )
    copy = path.with_name("copy.sqlite")
    database.copy_to(copy)
    assert words.encode() in copy.read_bytes()  # the control: what is there is found
    with database.write() as tx:
        tx.run("UPDATE organizations SET name = id WHERE id LIKE 'org_1%'")
        tx.run("DELETE FROM organizations WHERE id NOT LIKE 'org_1%'")
    database.copy_to(copy)
    assert words.encode() not in copy.read_bytes()

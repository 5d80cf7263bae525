"""What every database keeps to: SQLite, and the laboratory's, whose power can be cut."""

import contextlib
import threading
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.lab.power import CuttingDatabase, Power

from tunewarden.clock import SystemClock
from tunewarden.db import lists
from tunewarden.db.database import Database
from tunewarden.db.sqlite import SqliteDatabase

# Opens the same database once more, as another process would.
Open = Callable[[], Database]


class MovingClock(SystemClock):
    """Each look at it is a minute later."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(minutes=1)
        return self._now


@pytest.fixture(params=["sqlite", "with power"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    path = tmp_path / "test.sqlite"
    clock = MovingClock()
    if request.param == "sqlite":
        return lambda: SqliteDatabase(path, clock, migrate=True)
    return lambda: CuttingDatabase(path, clock, Power())


@pytest.fixture
def database(opened: Open) -> Database:
    made = opened()
    with made.write() as tx:
        tx.run("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    return made


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


def test_run_tells_how_many_rows_it_changed(database: Database) -> None:
    with database.write() as tx:
        assert tx.run("INSERT INTO things (name) VALUES ('a'), ('b')") == 2
        assert tx.run("UPDATE things SET name = 'c' WHERE name = :name", name="nobody") == 0
        assert tx.run("UPDATE things SET name = 'c'") == 2
        assert tx.run("DELETE FROM things WHERE id = :id", id=1) == 1


def test_a_statement_is_run_with_each_of_several_parameters(database: Database) -> None:
    with database.write() as tx:
        tx.run_each("INSERT INTO things (name) VALUES (:name)", [{"name": one} for one in "abc"])
        tx.run_each(
            "UPDATE things SET name = 'x' WHERE name = :name", [{"name": "b"}, {"name": "?"}]
        )
        tx.run_each("DELETE FROM things WHERE name = :name", [])
    assert _names(database) == ["a", "x", "c"]


def test_values_of_a_list_are_found_whatever_its_length(database: Database) -> None:
    with database.write() as tx:
        names = [{"name": f"n{place:03}"} for place in range(150)]
        tx.run_each("INSERT INTO things (name) VALUES (:name)", names)
    for length in (0, 1, 2, 8, 9, 64, 65, 129):
        wanted = [f"n{place:03}" for place in range(length)]
        with database.read() as tx:
            found = [
                row[0]
                for listed, values in lists.parts(wanted)
                for row in tx.rows(f"SELECT name FROM things WHERE name IN ({listed})", **values)
            ]
        assert sorted(found) == wanted


def test_a_read_sees_one_moment(database: Database, opened: Open) -> None:
    other = opened()
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


def test_the_stamp_moves_with_each_commit_and_only_then(database: Database, opened: Open) -> None:
    other = opened()
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


def test_a_rollback_lasts_only_for_its_transaction(database: Database) -> None:
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(ZeroDivisionError), database.write():
            raise ZeroDivisionError
    _insert(database, "x")
    assert time.monotonic() - began < 5

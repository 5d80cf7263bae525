"""Database over SQLite by apsw: one connection per thread, WAL, `synchronous=FULL`.

apsw bundles its SQLite, because the system's may carry the WAL-reset bug (fixed in 3.51.3), whose
trigger, several processes that write and checkpoint, is exactly our shape.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw

from tunewarden import locks
from tunewarden.clock import Clock, to_micros
from tunewarden.db.database import Row, Tx
from tunewarden.db.wal_index import WalIndex
from tunewarden.errors import Error, Kind

SQLITE_VERSION_MIN = (3, 51, 3)
BUSY_SECONDS = 10
# What the disk or another process did; any other error is a mistake in a statement of ours.
STORAGE_ERRORS = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.LockedError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
)


class SqliteTx:
    """A transaction on one connection; `now` was read when it opened."""

    __slots__ = ("_connection", "now")

    def __init__(self, connection: apsw.Connection, now: datetime) -> None:
        self._connection = connection
        self.now = now

    @property
    def now_micros(self) -> int:
        """`now` as microseconds since 1970."""
        return to_micros(self.now)

    def run(self, sql: str, /, **parameters: Any) -> int:
        """Run a statement that changes rows; return how many it changed."""
        before = self._connection.total_changes()
        self._connection.execute(sql, parameters).fetchall()
        return self._connection.total_changes() - before

    def row(self, sql: str, /, **parameters: Any) -> Row | None:
        """Return the first row, or None."""
        rows = self.rows(sql, **parameters)
        return rows[0] if rows else None

    def rows(self, sql: str, /, **parameters: Any) -> list[Row]:
        """Return every row."""
        return self._connection.execute(sql, parameters).fetchall()


class SqliteDatabase:
    """The database in one file. `migrate` is for whoever starts the server, not for its workers."""

    def __init__(self, path: Path, clock: Clock, *, migrate: bool, vfs: str = "") -> None:
        if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < SQLITE_VERSION_MIN:
            raise Error(Kind.UNAVAILABLE, "SQLite is older than 3.51.3: upgrade the apsw package.")
        self._path = path
        self._writers = path.with_name(f"{path.name}-writers")
        self._vfs = (
            vfs  # another way to the disk, by the name it has in SQLite: tests cut the power
        )
        self._clock = clock
        self._local = threading.local()
        self._read_stamp: Callable[[], object] | None = None
        if migrate:
            self._migrate()
        elif self._schema_version() != _migrations()[-1][0]:
            raise Error(
                Kind.UNAVAILABLE, "The database has another version. Start the server first."
            )

    def read(self) -> AbstractContextManager[Tx]:
        """Open a snapshot to read from."""
        return _Transaction(self._connection, "BEGIN", self._clock)

    def write(self, *, survives: bool = True) -> AbstractContextManager[Tx]:
        """Open a transaction that may write. Raises Error(UNAVAILABLE) when others write too long."""
        writing = _Writing if survives else _WritingUnsynced
        return writing(self._connection, "BEGIN IMMEDIATE", self._clock, self._writers)

    def peek(self, sql: str, /, **parameters: Any) -> Row | None:
        """Return one row by one statement outside any transaction."""
        # fetchall, always: an unfinished cursor would pin the snapshot and make later reads stale.
        try:
            rows = self._connection().execute(sql, parameters).fetchall()
        except STORAGE_ERRORS as error:
            raise _failed(error) from error
        return rows[0] if rows else None

    def pages(self, sql: str, /, *, size: int, **parameters: Any) -> Iterator[list[Row]]:
        """Yield pages of a keyset query; each page is a read of its own."""
        after: Any = None
        while True:
            page = (
                self._connection()
                .execute(sql, {**parameters, "after": after, "size": size})
                .fetchall()
            )
            if page:
                yield page
            if len(page) < size:
                return
            after = page[-1][-1]

    def stamp(self) -> object:
        """Return what is equal to an earlier stamp only if nothing was committed in between."""
        return (self._read_stamp or self._find_stamp())()

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy to a new or existing file; others may write meanwhile."""
        copy = apsw.Connection(str(path))
        try:
            with copy.backup("main", self._connection(), "main") as backup:
                backup.step()
        finally:
            copy.close()

    def _connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), vfs=self._vfs or None)
        connection.set_busy_timeout(BUSY_SECONDS * 1000)
        # Without this a statement is compiled anew whenever a parameter that its plan looked at has
        # changed (STAT4, partial indexes): 30 us more for each request's look at its key or model.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "cache_size=-1024",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    def _find_stamp(self) -> Callable[[], object]:
        """Return what reads the stamp: each is unequal to all others where SQLite's is not known."""
        read_stamp: Callable[[], object] = object
        if not self._vfs:
            try:
                anchor = self._connect()
                anchor.execute("PRAGMA schema_version").fetchall()  # a read: it is in WAL now
                index = WalIndex(anchor)
            except (*STORAGE_ERRORS, OSError) as error:
                raise _failed(error) from error
            if index.is_known:
                read_stamp = index.stamp
        self._read_stamp = read_stamp
        return read_stamp

    def _schema_version(self) -> int:
        try:
            row = self.peek("SELECT MAX(version) FROM migrations")
        except apsw.SQLError:
            return 0
        return int(row[0] or 0) if row else 0

    def _migrate(self) -> None:
        with self.write() as tx:
            tx.run(
                "CREATE TABLE IF NOT EXISTS migrations "
                "(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL)"
            )
            newest = tx.row("SELECT MAX(version) FROM migrations")
            done = int(newest[0] or 0) if newest else 0
            for version, name, sql in _migrations():
                if version > done:
                    tx.run(sql)
                    tx.run(
                        "INSERT INTO migrations VALUES (:version, :name, :now)",
                        version=version,
                        name=name,
                        now=tx.now_micros,
                    )
            if done > _migrations()[-1][0]:
                raise Error(
                    Kind.UNAVAILABLE,
                    "This data directory was written by a newer Tunewarden. Start that version.",
                )


class _Transaction:
    """Opens, and commits or rolls back. A class, not a generator: each inference request opens one."""

    __slots__ = ("_begin", "_clock", "_connect", "_connection")

    def __init__(self, connect: Callable[[], apsw.Connection], begin: str, clock: Clock) -> None:
        self._connect = connect
        self._begin = begin
        self._clock = clock

    def __enter__(self) -> SqliteTx:
        try:
            self._connection = self._connect()
            self._connection.execute(self._begin)
        except apsw.BusyError as error:
            raise _busy() from error
        except STORAGE_ERRORS as error:
            raise _failed(error) from error
        return SqliteTx(self._connection, self._clock.now())

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
            except BaseException as failure:
                self._roll_back()
                if isinstance(failure, STORAGE_ERRORS):
                    raise _failed(failure) from failure
                raise
            return
        self._roll_back()
        if isinstance(error, STORAGE_ERRORS):
            raise _failed(error) from error

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself where it could not go on.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class _Writing(_Transaction):
    """Who writes queues for a lock beside the database, and the kernel wakes whose turn it is.

    SQLite's own lock still decides, but who meets it held sleeps, 1 to 100 ms at a time, and is overtaken.
    """

    __slots__ = ("_turn", "_writers")

    def __init__(
        self, connect: Callable[[], apsw.Connection], begin: str, clock: Clock, writers: Path
    ) -> None:
        super().__init__(connect, begin, clock)
        self._writers = writers

    def __enter__(self) -> SqliteTx:
        try:
            self._turn = locks.take(self._writers, BUSY_SECONDS)
        except Error as error:
            raise _busy() from error
        except OSError as error:
            raise _failed(error) from error
        try:
            return super().__enter__()
        except BaseException:
            locks.give_back(self._turn)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, at)
        finally:
            locks.give_back(self._turn)


class _WritingUnsynced(_Writing):
    """The WAL is not synced at the commit; whoever commits next and syncs it, syncs this with it."""

    __slots__ = ()

    def __enter__(self) -> SqliteTx:
        # Not in a transaction yet, where it would have no effect.
        self._connect().execute("PRAGMA synchronous=NORMAL")
        try:
            return super().__enter__()
        except BaseException:
            self._connect().execute("PRAGMA synchronous=FULL")
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, at)
        finally:
            self._connection.execute("PRAGMA synchronous=FULL")


def _busy() -> Error:
    return Error(Kind.UNAVAILABLE, "The database is busy; try again.", retry_after_seconds=1)


def _failed(error: Exception) -> Error:
    reason = type(error).__name__.removesuffix("Error")
    return Error(
        Kind.UNAVAILABLE,
        f"The database cannot be used ({reason}); nothing was changed. Try again; if it persists, tell"
        " the operator.",
        code="storage_failed",
    )


def _migrations() -> list[tuple[int, str, str]]:
    folder = resources.files("tunewarden.db") / "migrations"
    found = [
        (int(entry.name[:4]), entry.name, entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found)

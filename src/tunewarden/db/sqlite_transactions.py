"""SQLite transactions: classes, not generators, because each inference request opens one."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw

from tunewarden import locks, space
from tunewarden.clock import Clock, to_micros
from tunewarden.db.database import Row
from tunewarden.errors import Error, Kind

BUSY_SECONDS = 10
# Errors of the disk or another process; any other error is a bug in one of our statements.
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

    def run_each(self, sql: str, parameters: Iterable[Mapping[str, Any]], /) -> None:
        """Run a statement that changes rows once with each of these parameters."""
        self._connection.executemany(sql, parameters).fetchall()

    def row(self, sql: str, /, **parameters: Any) -> Row | None:
        """Return the first row, or None."""
        rows = self.rows(sql, **parameters)
        return rows[0] if rows else None

    def rows(self, sql: str, /, **parameters: Any) -> list[Row]:
        """Return every row."""
        return self._connection.execute(sql, parameters).fetchall()


class Transaction:
    """Opens a transaction, and commits it or rolls it back."""

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
            raise busy() from error
        except STORAGE_ERRORS as error:
            raise failed(error) from error
        return SqliteTx(self._connection, self._clock.now())

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            self._end(error)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Give back what was taken before the transaction began."""

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
            except BaseException as failure:
                self._roll_back()
                if isinstance(failure, STORAGE_ERRORS):
                    raise failed(failure) from failure
                raise
            return
        self._roll_back()
        if isinstance(error, STORAGE_ERRORS):
            raise failed(error) from error

    def _roll_back(self) -> None:
        # SQLite may have rolled back already.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class Writing(Transaction):
    """A write transaction: writers queue for a lock file, and the kernel wakes them in order.

    SQLite's own lock still decides, but its waiters sleep for 1 to 100 ms at a time, and are overtaken.
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
            raise busy() from error
        except OSError as error:
            raise failed(error) from error
        try:
            return super().__enter__()
        except BaseException:
            locks.give_back(self._turn)
            raise

    def _let_go(self) -> None:
        locks.give_back(self._turn)


class WritingUnsynced(Writing):
    """A write transaction whose commit does not sync the WAL; the next synced commit makes it durable."""

    __slots__ = ()

    def __enter__(self) -> SqliteTx:
        # Before BEGIN: inside a transaction it would have no effect.
        self._connect().execute("PRAGMA synchronous=NORMAL")
        try:
            return super().__enter__()
        except BaseException:
            self._connect().execute("PRAGMA synchronous=FULL")
            raise

    def _let_go(self) -> None:
        super()._let_go()
        self._connection.execute("PRAGMA synchronous=FULL")


def busy() -> Error:
    """Return the error for a lock timeout."""
    return Error(Kind.UNAVAILABLE, "The database is busy. Please try again.", retry_after_seconds=1)


def failed(error: Exception) -> Error:
    """Return the error for one of STORAGE_ERRORS, or an OSError."""
    if isinstance(error, apsw.FullError) or (
        isinstance(error, apsw.IOError)
        and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE
    ):
        return space.full()
    reason = type(error).__name__.removesuffix("Error")
    return Error(
        Kind.UNAVAILABLE,
        f"The database cannot be used ({reason}); nothing was changed. Try again; if it persists, tell"
        " the operator.",
        code="storage_failed",
    )

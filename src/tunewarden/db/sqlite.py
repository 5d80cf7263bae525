"""The SQLite driver, on apsw: one connection per thread, WAL, `synchronous=FULL`.

apsw bundles its SQLite, because the system's may carry the WAL-reset bug (fixed in 3.51.3), whose
trigger, several processes that write and checkpoint, is exactly our use.
"""

import ctypes
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import apsw

from tunewarden import space
from tunewarden.clock import Clock
from tunewarden.db import migrations
from tunewarden.db.database import Row, Tx
from tunewarden.db.sqlite_transactions import (
    BUSY_SECONDS,
    STORAGE_ERRORS,
    Transaction,
    Writing,
    WritingUnsynced,
    busy,
    failed,
)
from tunewarden.db.wal_index import WalIndex
from tunewarden.errors import Error, Kind

SQLITE_VERSION_MIN = (3, 51, 3)
# Migrations that remove client texts; and the user_version that marks a database as to be rewritten.
REWRITTEN_AFTER = frozenset({3})
REWRITE = 1
PAGE_BYTES = 4096
FILE_HEADER = b"SQLite format 3\0"  # https://sqlite.org/fileformat2.html
# The WAL is checkpointed at this many pages, SQLite's default.
WAL_PAGES_MAX = 1000


class SqliteDatabase:
    """A database in one file. Only the process that starts the server sets `migrate`."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        migrate: bool,
        vfs: str = "",
        check_room: Callable[[], None] = lambda: None,
        wal_bytes_max: int = 2 * WAL_PAGES_MAX * PAGE_BYTES,
    ) -> None:
        if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < SQLITE_VERSION_MIN:
            raise Error(Kind.UNAVAILABLE, "SQLite is older than 3.51.3: upgrade the apsw package.")
        self._path = path
        self._writers = path.with_name(f"{path.name}-writers")
        self._vfs = vfs  # name of a SQLite VFS: tests simulate power cuts with one
        self._clock = clock
        self._check_room = check_room
        # Checkpoint at half of its space, because readers can delay the WAL's restart.
        self._wal_pages_max = min(WAL_PAGES_MAX, wal_bytes_max // 2 // PAGE_BYTES)
        self._local = threading.local()
        # Called for every request, so the first call puts the WAL index's function in its own place.
        self.stamp: Callable[[], object] = self._first_stamp
        if migrate:
            self._migrate()
        elif self._schema_version() != migrations.found()[-1][0]:
            raise Error(
                Kind.UNAVAILABLE, "The database has another schema version. Start the server first."
            )

    def read(self) -> AbstractContextManager[Tx]:
        """Open a snapshot to read from."""
        return Transaction(self._connection, "BEGIN", self._clock)

    def write(
        self, *, survives: bool = True, below_floor: bool = False
    ) -> AbstractContextManager[Tx]:
        """Open a write transaction. Raises Error(UNAVAILABLE) after a timeout.

        Raises Error(STORAGE_FULL) below the floor, unless `below_floor`.
        """
        if not below_floor:
            self._check_room()
        writing = Writing if survives else WritingUnsynced
        return writing(self._connection, "BEGIN IMMEDIATE", self._clock, self._writers)

    def check_room(self) -> None:
        """Check that free space is above the floor. Raises Error(STORAGE_FULL)."""
        self._check_room()

    def peek(self, sql: str, /, **parameters: Any) -> Row | None:
        """Return one row by one statement outside any transaction."""
        # fetchall, always: an unfinished cursor would pin the snapshot and make later reads stale.
        try:
            rows = self._connection().execute(sql, parameters).fetchall()
        except STORAGE_ERRORS as error:
            raise failed(error) from error
        return rows[0] if rows else None

    def pages(self, sql: str, /, *, size: int, **parameters: Any) -> Iterator[list[Row]]:
        """Yield pages of a keyset query; each page is a separate read."""
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

    def reserve(self, database_bytes: int, wal_bytes: int) -> None:
        """Create free pages in the database, and preallocate the WAL.

        On a full disk rows can be written until these pages are used up. # I20, D3
        Raises Error(STORAGE_FULL), Error(UNAVAILABLE), OSError.
        """
        space.allocate(self._path.with_name(f"{self._path.name}-wal"), wal_bytes)
        free = self.peek("PRAGMA freelist_count")
        if free is not None and free[0] * PAGE_BYTES >= database_bytes // 2:
            return
        with self.write(survives=False) as tx:
            tx.run("DELETE FROM reserved")
            tx.run("INSERT INTO reserved VALUES (zeroblob(:bytes))", bytes=database_bytes)
        self.peek("PRAGMA wal_checkpoint(PASSIVE)")  # so that the pages are in the file
        with self.write(survives=False, below_floor=True) as tx:
            tx.run("DELETE FROM reserved")

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy, in place of an older one; concurrent writes are allowed.

        Raises Error(CONFLICT) for a file that is no database, Error(UNAVAILABLE); then nothing has changed.
        """
        new = path.with_name(f"{path.name}.new")
        try:
            if path.exists():
                _check_is_database(path)
            new.unlink(missing_ok=True)
            copy = apsw.Connection(str(new))
            try:
                with copy.backup("main", self._connection(), "main") as backup:
                    backup.step()
            finally:
                copy.close()
            new.replace(path)
        except (OSError, apsw.Error) as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            said = f"The copy could not be written to {path}. Is there such a directory, and room?"
            raise Error(Kind.UNAVAILABLE, said) from error

    def must_be_rewritten(self) -> bool:
        """Return whether a migration left data in free pages that must be removed by `rewrite`."""
        row = self.peek("PRAGMA user_version")
        return row is not None and row[0] == REWRITE

    def rewrite(self) -> None:
        """Rewrite the database without free pages and empty the WAL; no other process may have it open.

        `secure_delete` is not enough: cells that moved in a page split stay behind in the old page.
        Raises Error(UNAVAILABLE); then it must be repeated.
        """
        try:
            connection = self._connection()
            connection.execute("VACUUM").fetchall()
            connection.execute("PRAGMA user_version = 0").fetchall()
            [(is_busy, _, _)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except STORAGE_ERRORS as error:
            raise failed(error) from error
        if is_busy:
            connection.execute(f"PRAGMA user_version = {REWRITE}").fetchall()
            raise busy()

    def _connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), vfs=self._vfs or None)
        connection.set_busy_timeout(BUSY_SECONDS * 1000)
        # Without this a statement is recompiled whenever a parameter that its plan depends on has
        # changed (STAT4, partial indexes): 30 us more for each request's read of its key or model.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            # What is deleted, such as an address, is overwritten with zeros in the file, and so in backups.
            "secure_delete=ON",
            "cache_size=-1024",
            f"wal_autocheckpoint={self._wal_pages_max}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        # Keep the WAL, and its preallocated space, when the last connection is closed.
        keep = ctypes.c_int(1)
        connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
        return connection

    def _first_stamp(self) -> object:
        """Return a commit stamp: the WAL-index header. If its format is unknown, no two are equal."""
        found: Callable[[], object] = object
        if not self._vfs:
            try:
                anchor = self._connect()
                anchor.execute("PRAGMA schema_version").fetchall()  # a read: it is in WAL now
                index = WalIndex(anchor)
            except (*STORAGE_ERRORS, OSError) as error:
                raise failed(error) from error
            if index.is_known:
                found = index.stamp
        self.stamp = found
        return found()

    def _schema_version(self) -> int:
        try:
            row = self.peek("SELECT MAX(version) FROM migrations")
        except apsw.SQLError:
            return 0
        return int(row[0] or 0) if row else 0

    def _migrate(self) -> None:
        with self.write(below_floor=True) as tx:
            self._connection().create_scalar_function("sha256", _sha256, 1)
            tx.run(
                "CREATE TABLE IF NOT EXISTS migrations "
                "(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL)"
            )
            done = {int(row[0]) for row in tx.rows("SELECT version FROM migrations")}
            for version, name, sql in migrations.found():
                if version not in done:
                    tx.run(sql)
                    if done and version in REWRITTEN_AFTER:
                        tx.run(f"PRAGMA user_version = {REWRITE}")
                    tx.run(
                        "INSERT INTO migrations VALUES (:version, :name, :now)",
                        version=version,
                        name=name,
                        now=tx.now_micros,
                    )
            if max(done, default=0) > migrations.found()[-1][0]:
                raise Error(
                    Kind.UNAVAILABLE,
                    "This data directory was written by a newer Tunewarden. Start that version.",
                )


def _sha256(*arguments: Any) -> bytes:
    """Return the digest of one text, like PostgreSQL's function `sha256`."""
    (text,) = arguments
    return hashlib.sha256(str(text).encode()).digest()


def _check_is_database(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(FILE_HEADER)) != FILE_HEADER:
            said = f"{path} is not a copy of a database. Choose another name."
            raise Error(Kind.CONFLICT, said)

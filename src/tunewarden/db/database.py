"""The database port: short transactions with a frozen clock. Each table's SQL is in the module that owns it.

Statements use `:name` parameters only and the dialect that SQLite and PostgreSQL share; rows
are tuples in the order of the SELECT list. A transaction's `now` is constant, so that everything
written in it has one time.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

Row = tuple[Any, ...]


class Tx(Protocol):
    """One transaction. It commits when its `with` block ends and rolls back when that raises."""

    @property
    def now(self) -> datetime:
        """The time of this transaction: aware, UTC."""

    @property
    def now_micros(self) -> int:
        """`now` as microseconds since 1970: the form of times in tables."""

    def run(self, sql: str, /, **parameters: Any) -> int:
        """Run a statement that changes rows; return how many it changed."""

    def run_each(self, sql: str, parameters: Iterable[Mapping[str, Any]], /) -> None:
        """Run a statement that changes rows once with each of these parameters."""

    def row(self, sql: str, /, **parameters: Any) -> Row | None:
        """Return the first row, or None."""

    def rows(self, sql: str, /, **parameters: Any) -> list[Row]:
        """Return every row."""


class Database(Protocol):
    """A database. A committed write survives a power cut, unless `survives=False`."""

    def read(self) -> AbstractContextManager[Tx]:
        """Open a snapshot to read from."""

    def write(
        self, *, survives: bool = True, below_floor: bool = False
    ) -> AbstractContextManager[Tx]:
        """Open a write transaction. Writers are serialized; raises Error(UNAVAILABLE) after a timeout.

        Raises Error(STORAGE_FULL) below the floor of free space, unless `below_floor`: for deletions,
        revocations and what frees space. # I20
        Without `survives` a power cut may undo it, together with all such commits since the
        last durable one, but never a part of it; a process crash undoes nothing.
        """

    def check_room(self) -> None:
        """Check that free space is above the floor. Raises Error(STORAGE_FULL)."""

    def peek(self, sql: str, /, **parameters: Any) -> Row | None:
        """Return one row by one statement outside any transaction: the current state, never stale."""

    def pages(self, sql: str, /, *, size: int, **parameters: Any) -> Iterator[list[Row]]:
        """Yield pages of a keyset query, in constant memory.

        The statement takes `:after` (start with None) and `:size`, and its last column is the key.
        """

    def stamp(self) -> object:
        """Return an opaque commit stamp. Equal stamps guarantee that nothing was committed between the calls.

        Unequal stamps say nothing. Data read after taking a stamp is valid while the stamp is equal;
        comparing costs no query.
        """

    def reserve(self, database_bytes: int, wal_bytes: int) -> None:
        """Preallocate space that writes below the floor can use on a full disk. # I20, D3.

        Raises Error(STORAGE_FULL), Error(UNAVAILABLE), OSError.
        """

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy, in place of an older one; concurrent writes are allowed.

        Raises Error(CONFLICT) for a file that is no database, Error(UNAVAILABLE); then nothing has changed.
        """

    def must_be_rewritten(self) -> bool:
        """Return whether a migration left data in free pages that must be removed by `rewrite`."""

    def rewrite(self) -> None:
        """Rewrite the database without free pages (VACUUM); no other process may have it open.

        Raises Error(UNAVAILABLE); then it must be repeated.
        """

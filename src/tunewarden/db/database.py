"""The database port: short transactions with a frozen clock. SQL is written where the table is owned.

Statements take `:name` parameters only and use the dialect that SQLite and PostgreSQL share; rows
are tuples in the order of the SELECT list. A transaction's `now` does not move, so that everything
written in it carries one time.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

Row = tuple[Any, ...]


class Tx(Protocol):
    """One transaction. It commits when its `with` block ends and rolls back when that raises."""

    @property
    def now(self) -> datetime:
        """The time of this transaction: aware, UTC."""

    @property
    def now_micros(self) -> int:
        """`now` as microseconds since 1970: the form in which tables keep times."""

    def run(self, sql: str, /, **parameters: Any) -> int:
        """Run a statement that changes rows; return how many it changed."""

    def row(self, sql: str, /, **parameters: Any) -> Row | None:
        """Return the first row, or None."""

    def rows(self, sql: str, /, **parameters: Any) -> list[Row]:
        """Return every row."""


class Database(Protocol):
    """Where records live. A committed write survives a power cut, unless it was asked for otherwise."""

    def read(self) -> AbstractContextManager[Tx]:
        """Open a snapshot to read from."""

    def write(self, *, survives: bool = True) -> AbstractContextManager[Tx]:
        """Open a transaction that may write. Writers take turns; raises Error(UNAVAILABLE).

        Without `survives` a power cut may take it back, with all that was committed like it since the
        last write that survives, and never a part of it; the death of a process takes nothing.
        """

    def peek(self, sql: str, /, **parameters: Any) -> Row | None:
        """Return one row by one statement outside any transaction: the current state, never stale."""

    def pages(self, sql: str, /, *, size: int, **parameters: Any) -> Iterator[list[Row]]:
        """Yield pages of a keyset query in flat memory.

        The statement takes `:after` (start with None) and `:size`, and its last column is the key.
        """

    def stamp(self) -> object:
        """Return what is equal to an earlier stamp only if nothing was committed in between.

        So what was read after a stamp was taken still holds as long as the stamp does: comparing costs
        no look at the database.
        """

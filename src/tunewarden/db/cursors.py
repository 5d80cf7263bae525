"""Cursors of paged lists: the id of the last object that the client has seen, `after`."""

from collections.abc import Callable
from typing import Any

from tunewarden import ids
from tunewarden.db.database import Row
from tunewarden.errors import Error, Kind

# Every row's number is between these two.
BEFORE_ALL = 0
AFTER_ALL = 9_223_372_036_854_775_807


def position(
    row: Callable[..., Row | None], sql: str, *, after: str | None, first: int, **parameters: Any
) -> int:
    """Return the number of the row that a page begins after: `first` without a cursor.

    `row` is a transaction's `row` or a database's `peek`. `sql` selects the number of `:after` among the rows that the
    caller may see: an unknown and a foreign cursor get the same answer (I9). Raises Error(INVALID).
    """
    if after is None:
        return first
    found = row(sql, after=after, **parameters)
    if found is None:
        raise Error(
            Kind.INVALID,
            f"Invalid value for 'after': this list has no object with the id '{ids.shown(after)}'.",
            param="after",
            code="invalid_value",
        )
    return int(found[0])

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
    row: Callable[..., Row | None],
    sql: str,
    *,
    after: str | None,
    first: int,
    may_be_gone: ids.Prefix | None = None,
    **parameters: Any,
) -> int:
    """Return the number of the row that a page begins after: `first` without a cursor.

    `row` is a transaction's `row` or a database's `peek`. `sql` selects the number of `:after` among the rows that the
    caller may see: an unknown and a foreign cursor get the same answer (I9). Rows with ids of the kind `may_be_gone`
    are not kept: after such an id the list begins anew, so that who deletes each of a list reaches its end.
    Raises Error(INVALID).
    """
    if after is None:
        return first
    found = row(sql, after=after, **parameters)
    if found is None and may_be_gone is not None and ids.is_minted(after, may_be_gone):
        return first
    if found is None:
        raise unknown(after)
    return int(found[0])


def time_of(
    row: Callable[..., Row | None],
    sql: str,
    *,
    after: str | None,
    is_ascending: bool = False,
    **parameters: Any,
) -> tuple[int, str]:
    """Return time and id of the row that a page begins after, in a list by time and id, newest first by default.

    `sql` selects the time of `:after` among the rows that the caller may see (I9). Raises Error(INVALID).
    """
    if after is None:
        return BEFORE_ALL if is_ascending else AFTER_ALL, ""
    found = row(sql, after=after, **parameters)
    if found is None:
        raise unknown(after)
    return int(found[0]), after


def unknown(cursor: str, param: str = "after") -> Error:
    """Return the error for a cursor that is none of its list's objects."""
    return Error(
        Kind.INVALID,
        f"Invalid value for '{param}': this list has no object with the id '{ids.shown(cursor)}'.",
        param=param,
        code="invalid_value",
    )

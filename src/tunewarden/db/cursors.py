"""Cursors of paged lists: the id of the last object that the client has seen, `after`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunewarden import ids
from tunewarden.db.database import Row, Tx
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


@dataclass(frozen=True, slots=True)
class ByTime:
    """A list by time and id, whose pages are read alike.

    `rows` is SQL from FROM on, with the conditions of what the caller may see (I9); `time` and `id` name its columns.
    Who deletes each of a list as it is read must reach its end: `cursors` is like `rows`, with those that are listed no
    more, where rows stay; after an id of the kind `may_be_gone`, where they do not, the list begins anew.
    """

    columns: str
    rows: str
    time: str = "created_at"
    id: str = "id"
    cursors: str | None = None
    may_be_gone: ids.Prefix | None = None

    def position(
        self, tx: Tx, after: str | None, *, is_ascending: bool = False, **parameters: Any
    ) -> tuple[int, str]:
        """Return time and id of the row that a page begins after. Raises Error(INVALID) for an unknown cursor."""
        first = BEFORE_ALL if is_ascending else AFTER_ALL, ""
        if after is None:
            return first
        found = tx.row(
            f"SELECT {self.time} {self.cursors or self.rows} AND {self.id} = :after",
            after=after,
            **parameters,
        )
        if found is None and self.may_be_gone and ids.is_minted(after, self.may_be_gone):
            return first
        if found is None:
            raise unknown(after)
        return int(found[0]), after

    def page(
        self,
        tx: Tx,
        *,
        after: str | None,
        limit: int,
        is_ascending: bool = False,
        only: str = "",
        **parameters: Any,
    ) -> list[Row]:
        """Return up to `limit` rows after a cursor, newest first unless `is_ascending`.

        `only` is a condition that a page's rows meet and its cursor need not.
        Raises Error(INVALID) for an unknown cursor.
        """
        compared, order = (">", "ASC") if is_ascending else ("<", "DESC")
        time, last_id = self.position(tx, after, is_ascending=is_ascending, **parameters)
        return tx.rows(
            f"SELECT {self.columns} {self.rows} {only} AND ({self.time}, {self.id}) {compared} (:time, :last)"
            f" ORDER BY {self.time} {order}, {self.id} {order} LIMIT :limit",
            time=time,
            last=last_id,
            limit=limit,
            **parameters,
        )


def unknown(cursor: str, param: str = "after") -> Error:
    """Return the error for a cursor that is none of its list's objects."""
    return Error(
        Kind.INVALID,
        f"Invalid value for '{param}': this list has no object with the id '{ids.shown(cursor)}'.",
        param=param,
        code="invalid_value",
    )

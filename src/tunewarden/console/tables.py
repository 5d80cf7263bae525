"""Lists as files that programs read, CSV or JSON: the rows that the pages of a list show, with the same filter.

A file has a bounded number of rows; what follows is at the address in its `Link` header.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from starlette.responses import Response

from tunewarden.api.answers import JsonAnswer
from tunewarden.console import lists
from tunewarden.console.requests import Visit

T = TypeVar("T")
P = ParamSpec("P")
Cell = str | int | bool | None
# Of one file, and of one read. A filter that few rows meet reads more often than it finds: hence the bound on reads.
ROWS_MAX = 5000
READ_ROWS = 100
READS_MAX = 50
# A spreadsheet takes a cell that begins with one of these as a formula, also in their wide forms. Where the comma is the
# decimal point it begins a cell after a semicolon too, and what is quoted for commas is not quoted for it.
FORMULA = re.compile(r"""(^|;[\s"']*)(?=[=+\-@\t\r\n＝＋－＠])""")  # noqa: RUF001  wide on purpose


@dataclass(frozen=True)  # with slots no `Table[T](…)` can be made
class Table(Generic[T]):
    """A list: what it is called, its columns, and how its pages are read.

    `read` returns up to so many rows after a cursor, and the cursor of what follows; the filter is in the address.
    """

    name: str
    read: Callable[[Visit, str | None, int], tuple[Sequence[T], str | None]]
    columns: Mapping[str, Callable[[T], Cell]]

    def page(self, visit: Visit) -> tuple[Sequence[T], dict[str, Any]]:
        """Return the rows of the page that is asked for, and where the others are, for the template."""
        rows, cursor = self.read(visit, visit.asked.asked_for("after") or None, lists.PAGE_ROWS)
        return rows, {"rows": rows, **lists.paged(visit, cursor)}


def also_as(
    table: Table[Any],
) -> Callable[
    [Callable[Concatenate[Visit, P], Response]], Callable[Concatenate[Visit, P], Response]
]:
    """Return a decorator of a list's page: with `format` in the address it returns the file."""

    def decorated(
        show: Callable[Concatenate[Visit, P], Response],
    ) -> Callable[Concatenate[Visit, P], Response]:
        @wraps(show)
        def shown(visit: Visit, /, *args: P.args, **kwargs: P.kwargs) -> Response:
            write = FORMATS.get(visit.asked.asked_for("format"))
            if write is None:
                return show(visit, *args, **kwargs)
            with visit.asked.services.long_work.held(visit.caller.organization_id):
                return _file(visit, table, write)

        return shown

    return decorated


def instant(micros: int | None) -> str | None:
    """Return microseconds since 1970 as text, to the second; None for none, and for 0, which is never."""
    return moment(micros / 1_000_000) if micros else None


def moment(seconds: float | None) -> str | None:
    """Return seconds since 1970 as text, to the second."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def harmless(cell: Cell) -> Cell:
    """Return a cell that no spreadsheet takes as a formula: an apostrophe stands before what would begin one."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return FORMULA.sub(r"\1'", cell) if isinstance(cell, str) else cell


Rows = Iterator[dict[str, Cell]]
Writer = Callable[[Table[Any], Rows, str | None], Response]


def _file(visit: Visit, table: Table[T], write: Writer) -> Response:
    found: list[T] = []
    cursor = visit.asked.asked_for("after") or None
    for _ in range(READS_MAX):
        some, cursor = table.read(visit, cursor, min(READ_ROWS, ROWS_MAX - len(found)))
        found += some
        if cursor is None or len(found) >= ROWS_MAX:
            break
    rows = ({name: of(one) for name, of in table.columns.items()} for one in found)
    response = write(table, rows, cursor)
    kind = visit.asked.asked_for("format")
    is_part = "-part" if cursor or visit.asked.asked_for("after") else ""
    response.headers["content-disposition"] = f'attachment; filename="{table.name}{is_part}.{kind}"'
    if cursor is not None:
        following = lists.address(visit, {"after": cursor})
        response.headers["link"] = f'<{following}>; rel="next"'
    return response


def _csv(table: Table[Any], rows: Rows, _: str | None) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)  # lines end with CRLF, as RFC 4180 says
    writer.writerow(table.columns)
    for row in rows:
        writer.writerow([harmless(cell) for cell in row.values()])
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8; header=present")


def _json(_: Table[Any], rows: Rows, cursor: str | None) -> Response:
    found = {"object": "list", "data": list(rows), "has_more": cursor is not None, "after": cursor}
    return JsonAnswer(found)


FORMATS: Mapping[str, Writer] = {"csv": _csv, "json": _json}

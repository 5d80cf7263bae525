"""Pages of lists: what a page shows, and where the next one begins. Filters and cursor are in the address."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from tunewarden.console.requests import Visit

T = TypeVar("T")
PAGE_ROWS = 20


def cut(
    found: Sequence[T], id_of: Callable[[T], str], limit: int = PAGE_ROWS
) -> tuple[Sequence[T], str | None]:
    """Return the rows of one page, and the cursor of the next one: `found` holds one more if there is one."""
    rows = found[:limit]
    return rows, id_of(rows[-1]) if len(found) > limit else None


def address(visit: Visit, changed: Mapping[str, str | None]) -> str:
    """Return the address of this page with other parameters: None removes one."""
    request = visit.asked.request
    query = {**request.query_params, **changed}
    written = urlencode({name: value for name, value in query.items() if value})
    path: str = request.scope["path"]
    return path + (f"?{written}" if written else "")


def paged(visit: Visit, cursor: str | None) -> dict[str, str | None]:
    """Return where the first and the next page are, for the template."""
    return {
        "first": address(visit, {"after": None}) if visit.asked.asked_for("after") else None,
        "next": None if cursor is None else address(visit, {"after": cursor}),
        # All rows, from the first on.
        "csv": address(visit, {"after": None, "format": "csv"}),
        "json": address(visit, {"after": None, "format": "json"}),
    }

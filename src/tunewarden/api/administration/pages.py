"""Pages of the lists of administration: `limit` objects at most, `after` the id of the last object seen."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query
from starlette.responses import Response

from tunewarden.api import listing
from tunewarden.api.listing import Listed
from tunewarden.api.parameters import Administration

LIMIT_MAX = 100
# The SDK's own tests ask for 0.
Limit = Annotated[int, Query(ge=0, le=LIMIT_MAX)]
LIMIT = 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page is asked for."""

    limit: int
    after: str | None


async def _asked(limit: Limit = LIMIT, after: str | None = None) -> Asked:
    return Asked(limit, after)


InPage = Annotated[Asked, Depends(_asked)]


def page(
    context: Administration,
    asked: Asked,
    read: Callable[..., list[T]],
    *of: str,
    shown: Callable[[list[T]], Iterable[Listed]],
    **chosen: Any,
) -> Response:
    """Return a page of what `read` finds, an operation of `identity`: one more than asked for tells whether more follow."""
    database, administrator = context.operations.database, context.administrator
    found = read(database, administrator, *of, **chosen, after=asked.after, limit=asked.limit + 1)
    return listing.page(shown(found), asked.limit)

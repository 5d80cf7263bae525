"""The list object, `{"object":"list","data":[…],…}`: a page of at most `limit` objects and `has_more`."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from starlette.responses import Response, StreamingResponse

from tunewarden.json_encoding import encoded

JSON = "application/json"


class Listed(Protocol):
    """An object of `schemas`."""

    @property
    def id(self) -> str:
        """Its id, which is also the cursor (`after`) of the page that follows it."""


# Objects encoded per chunk: about 40 KiB of a long list.
BATCH = 200


def page(found: Iterable[Listed], limit: int | None) -> Response:
    """Return a page as one response; `found` holds one object more than `limit` if there are more."""
    return Response(b"".join(_pieces(found, limit, has_ids=True)), media_type=JSON)


def stream(
    found: Iterable[Listed], limit: int | None, *, has_ids: bool = True
) -> StreamingResponse:
    """Stream a list in constant memory; without a limit it is complete.

    `has_ids` adds `first_id` and `last_id`, which OpenAI's list of models does not have.
    """
    return StreamingResponse(_pieces(found, limit, has_ids=has_ids), media_type=JSON)


def _pieces(found: Iterable[Listed], limit: int | None, *, has_ids: bool) -> Iterator[bytes]:
    separator = b'{"object":"list","data":['
    objects = iter(found)
    left = limit
    first_id = last_id = None
    while batch := list(islice(objects, BATCH if left is None else min(BATCH, left))):
        first_id, last_id = first_id or batch[0].id, batch[-1].id
        yield separator + encoded(batch)[1:-1]
        separator = b","
        left = None if left is None else left - len(batch)
    has_more = left == 0 and next(objects, None) is not None
    ids = {"first_id": first_id, "last_id": last_id} if has_ids else {}
    end = b"]," + encoded({**ids, "has_more": has_more})[1:]
    yield end if separator == b"," else separator + end

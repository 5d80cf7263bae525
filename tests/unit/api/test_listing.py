"""The list object is whole and right at every length and limit, however it is cut into pieces."""

import asyncio
import json
from collections.abc import Iterator

import msgspec
import pytest

from tunewarden.api import listing
from tunewarden.api.listing import BATCH

LENGTHS = (0, 1, 2, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH, 2 * BATCH + 1)


class One(msgspec.Struct):
    id: str
    name: str


def _found(count: int) -> Iterator[One]:
    return (One(f"one-{n}", "é") for n in range(count))


async def _streamed(count: int, limit: int | None) -> bytes:
    pieces = listing.stream(_found(count), limit).body_iterator
    return b"".join([bytes(piece) async for piece in pieces if not isinstance(piece, str)])


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("limit", [None, *LENGTHS])
def test_a_list_has_what_fits_and_says_whether_there_is_more(count: int, limit: int | None) -> None:
    body = bytes(listing.page(_found(count), limit).body)
    shown = count if limit is None else min(count, limit)
    data = msgspec.to_builtins(list(_found(shown)))
    assert list(json.loads(body).items()) == [
        ("object", "list"),
        ("data", data),
        ("first_id", data[0]["id"] if data else None),
        ("last_id", data[-1]["id"] if data else None),
        ("has_more", count > shown),
    ]
    assert asyncio.run(_streamed(count, limit)) == body


def test_a_list_without_ids_has_none() -> None:
    async def body() -> bytes:
        pieces = listing.stream(_found(1), None, has_ids=False).body_iterator
        return b"".join([bytes(piece) async for piece in pieces if not isinstance(piece, str)])

    assert list(json.loads(asyncio.run(body()))) == ["object", "data", "has_more"]

"""Forms as streams: however the body is cut into pieces, the same fields and the same file come out."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from tests.support.uploading import CONTENT_TYPE, Field, form

from tunewarden.api import forms
from tunewarden.api.forms import FileForm
from tunewarden.api.memory_budget import MemoryBudget
from tunewarden.errors import Error, Kind

ALMOST = b"\r\n--a-boundary-of-our"


def _request(pieces: list[bytes], *, ends: bool = True) -> Request:
    """A request whose body comes in these pieces; without an end its client then sends nothing more."""
    waiting = iter(enumerate(pieces, 1))

    async def receive() -> dict[str, object]:
        number, piece = next(waiting, (0, None))
        if piece is None and not ends:
            await asyncio.Event().wait()
        if piece is None:
            return {"type": "http.disconnect"}
        return {
            "type": "http.request",
            "body": piece,
            "more_body": not ends or number < len(pieces),
        }

    headers = [(b"content-type", CONTENT_TYPE.encode())]
    return Request({"type": "http", "headers": headers}, receive)


async def _read(request: Request, *, bytes_max: int = 10**6) -> tuple[FileForm, bytes]:
    read = FileForm(request, file="file", fields=("purpose", "x"), bytes_max=bytes_max)
    await read.begin()
    return read, b"".join([piece async for piece in read.pieces()])


def _cut(body: bytes, places: list[int]) -> Iterator[bytes]:
    at = 0
    for place in [*sorted(places), len(body)]:
        if place > at:
            yield body[at:place]
            at = place


@given(
    content=st.lists(st.sampled_from([b"a", ALMOST, b"\r", b"\n", b"\r\n--", bytes(3000)])).map(
        b"".join
    ),
    fields=st.permutations([Field("purpose", b"batch"), Field("x", ALMOST), None]),
    data=st.data(),
)
def test_how_the_body_is_cut_does_not_matter(
    content: bytes, fields: list[Field | None], data: st.DataObject
) -> None:
    body = form(*(field or Field("file", content, "a b.txt") for field in fields))
    places = data.draw(st.lists(st.integers(1, len(body)), max_size=30))
    read, found = asyncio.run(_read(_request(list(_cut(body, places)))))
    assert found == content
    assert read.filename == "a b.txt"
    assert read.form.fields == {"purpose": b"batch", "x": ALMOST}


@given(size=st.integers(0, 200), most=st.integers(0, 200))
def test_a_file_may_be_as_large_as_it_may_be(size: int, most: int) -> None:
    request = _request([form(Field("file", bytes(size), "x"))])
    if size <= most:
        assert len(asyncio.run(_read(request, bytes_max=most))[1]) == size
        return
    with pytest.raises(Error) as caught:
        asyncio.run(_read(request, bytes_max=most))
    assert caught.value.kind is Kind.TOO_LARGE


@given(st.data())
def test_a_body_that_ends_early_is_an_error_wherever_it_ends(data: st.DataObject) -> None:
    body = form(Field("file", b"content", "x"), Field("purpose", b"batch"))
    end = data.draw(st.integers(0, len(body) - len("--\r\n") - 1))
    with pytest.raises(Error) as caught:
        asyncio.run(_read(_request([body[:end]])))
    assert caught.value.kind is Kind.INVALID


def test_a_client_that_goes_silent_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forms, "SILENCE_SECONDS", 0.05)
    body = form(Field("file", b"content", "x"))
    with pytest.raises(Error, match="did not arrive in time") as caught:
        asyncio.run(_read(_request([body[:-5]], ends=False)))
    assert caught.value.kind is Kind.TOO_SLOW


def _endless(first: bytes, piece: bytes, *, pause_seconds: float) -> Request:
    """A request that goes on with the same piece for ever."""
    came = 0

    async def receive() -> dict[str, object]:
        nonlocal came
        came += 1
        assert came < 100_000, "it is read without end"
        await asyncio.sleep(pause_seconds)
        return {"type": "http.request", "body": first if came == 1 else piece, "more_body": True}

    headers = [(b"content-type", CONTENT_TYPE.encode())]
    return Request({"type": "http", "headers": headers}, receive)


def test_a_body_that_comes_in_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "GRACE_SECONDS", 0.2)
    body = form(Field("file", b"content", "x"))
    with pytest.raises(Error) as caught:
        asyncio.run(_read(_endless(body[:-30], b"x", pause_seconds=0.01)))
    assert caught.value.kind is Kind.TOO_SLOW


def test_what_follows_the_last_boundary_ends() -> None:
    body = form(Field("file", b"content", "x"))
    with pytest.raises(Error, match="after the multipart body"):
        asyncio.run(_read(_endless(body, b"epilogue" * 100, pause_seconds=0)))


def test_an_organization_holds_its_share_of_memory_and_gives_it_back() -> None:
    budget = MemoryBudget(100, 60)
    with budget.held("a", 50) as one, budget.held("b", 30):
        with pytest.raises(Error) as caught:
            one.cover(61)
        assert caught.value.kind is Kind.RATE_LIMITED
        with pytest.raises(Error) as caught, budget.held("c", 30):
            pass
        assert caught.value.kind is Kind.UNAVAILABLE
        one.cover(60)
        with budget.held("c", 10):
            pass
    with budget.held("a", 60), budget.held("c", 40):
        pass


def test_a_name_that_is_not_text_is_refused() -> None:
    body = form(Field("file", b"content", "NAME")).replace(b"NAME", b"\xff\xfe")
    read, _ = asyncio.run(_read(_request([body])))
    with pytest.raises(Error, match="UTF-8"):
        _ = read.filename

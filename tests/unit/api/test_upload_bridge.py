"""From the event loop into a thread: in order, bounded, and ended by whoever ends first."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.api.upload_bridge import HELD_BYTES_MAX, SHARE_MAX, STREAMS_MAX, Intake
from tunewarden.artifacts.sealing import Readable
from tunewarden.errors import Error, Kind

T = TypeVar("T")


def _take(pieces: AsyncGenerator[bytes, None], work: Callable[[Readable], T]) -> T:
    async def run() -> T:
        return await Intake().take("org_1", pieces, work)

    return asyncio.run(run())


async def _pieces(*pieces: bytes) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


def _all(reader: Readable, size: int = 8192) -> bytes:
    found = b""
    while data := reader.read(size):
        assert len(data) <= size
        found += data
    return found


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 60))
def test_what_goes_in_comes_out_in_order(pieces: list[bytes], size: int) -> None:
    assert _take(_pieces(*pieces), lambda reader: _all(reader, size)) == b"".join(pieces)


def test_no_more_than_a_little_is_held_for_a_slow_reader() -> None:
    given_out = 0
    piece = bytes(64 * 1024)

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal given_out
        for _ in range(1000):
            given_out += len(piece)
            yield piece

    most = 0

    def slow(reader: Readable) -> int:
        nonlocal most
        read = 0
        while data := reader.read(100_000):
            read += len(data)
            threading.Event().wait(0.0002)
            most = max(most, given_out - read)
        return read

    assert _take(endless(), slow) == 1000 * len(piece)
    assert HELD_BYTES_MAX // 4 < most <= HELD_BYTES_MAX + 2 * len(piece)


def test_a_failure_of_the_client_ends_the_reader_and_is_what_the_caller_gets() -> None:
    seen: list[BaseException] = []

    async def breaks() -> AsyncGenerator[bytes, None]:
        yield b"some"
        raise Error(Kind.INVALID, "broken off")

    def work(reader: Readable) -> bytes:
        try:
            return _all(reader)
        except Error as error:
            seen.append(error)
            raise

    with pytest.raises(Error, match="broken off"):
        _take(breaks(), work)
    assert [str(error) for error in seen] == ["broken off"]


def test_a_failure_of_the_work_ends_the_stream() -> None:
    taken = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(64 * 1024)

    def full(reader: Readable) -> None:
        reader.read(10)
        raise Error(Kind.UNAVAILABLE, "the disk is full")

    with pytest.raises(Error, match="the disk is full"):
        _take(endless(), full)
    assert taken < 100


def test_a_cancelled_request_waits_until_its_work_is_undone() -> None:
    ended = threading.Event()

    async def stalled() -> AsyncGenerator[bytes, None]:
        yield b"some"
        await asyncio.Event().wait()

    def work(reader: Readable) -> bytes:
        try:
            return _all(reader)
        finally:
            threading.Event().wait(0.05)
            ended.set()

    async def run() -> None:
        task = asyncio.create_task(Intake().take("org_1", stalled(), work))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(run())


def test_one_organization_cannot_take_every_turn() -> None:
    async def run() -> tuple[int, str]:
        intake = Intake()
        begun: list[int] = []
        are_full = asyncio.Event()
        may_end = asyncio.Event()

        async def slow() -> AsyncGenerator[bytes, None]:
            begun.append(1)
            if len(begun) == SHARE_MAX:
                are_full.set()
            yield b"x"
            await may_end.wait()

        async def quick() -> AsyncGenerator[bytes, None]:
            yield b"y"

        hogs = [
            asyncio.create_task(intake.take("org_a", slow(), lambda reader: reader.read(9)))
            for _ in range(STREAMS_MAX * 2)
        ]
        async with asyncio.timeout(30):
            await are_full.wait()
            other = await intake.take("org_b", quick(), lambda reader: reader.read(9).decode())
        most = len(begun)
        may_end.set()
        await asyncio.gather(*hogs)
        assert not intake._shares, "nothing is kept of an organization without files"
        return most, other

    assert asyncio.run(run()) == (SHARE_MAX, "y")

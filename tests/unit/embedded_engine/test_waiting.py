"""How the batch's rows are shared between organizations."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support import demo_models
from tests.unit.embedded_engine.test_adapters import start, texts_of

from tunewarden.embedded_engine.engine import Engine, Settings
from tunewarden.embedded_engine.prefill import Limits
from tunewarden.embedded_engine.queued import QUEUE_GROWTH, SHARES, Queued
from tunewarden.embedded_engine.waiting import WaitingRows
from tunewarden.errors import Error

ROWS, QUEUE = 8, 64


@dataclass(eq=False)
class BareRow:
    """What the queue reads of a row."""

    asked_by: str
    number: int
    receiver: Any
    prompt: Sequence[int] = (1,)
    adapter: str | None = None
    is_extra: bool = False
    steps: int = 1


def rows_of(organization: str, count: int, receiver: Any = None) -> list[Any]:
    """Return rows of one request, or each of a request of its own."""
    return [
        BareRow(asked_by=organization, number=at, receiver=receiver or object())
        for at in range(count)
    ]


def request_of(organization: str, count: int) -> Queued:
    """Return a request of so many rows, each of which counts for one token."""
    receiver: Any = object()
    rows = rows_of(organization, count, receiver)
    facts: Any = {"receiver": receiver, "adapter": None, "asked_by": organization}
    return Queued(rows, **facts, count=count, tokens=count)


def announce(waiting: WaitingRows, organization: str, tokens: int) -> None:
    request = request_of(organization, 1)
    request.tokens = tokens
    waiting.announce(request)


def put(waiting: WaitingRows, organization: str, count: int) -> Queued:
    request = request_of(organization, count)
    waiting.announce(request)
    waiting.add(request)
    return request


def waiting_with(**counts: int) -> WaitingRows:
    waiting = WaitingRows(QUEUE)
    for organization, count in counts.items():
        put(waiting, organization, count)
    return waiting


def shares(rows: Any) -> dict[str, int]:
    return dict(Counter(row.asked_by for row in rows))


def test_one_organization_alone_gets_every_row() -> None:
    assert shares(waiting_with(a=20).next_ones([], ROWS)) == {"a": ROWS}


def test_rows_are_shared_evenly_and_each_organizations_come_in_order() -> None:
    chosen: list[Any] = list(waiting_with(a=20, b=3, c=20).next_ones([], ROWS))
    assert shares(chosen) == {"a": 3, "b": 3, "c": 2}
    for organization in "abc":
        numbers = [row.number for row in chosen if row.asked_by == organization]
        assert numbers == list(range(len(numbers)))


def test_a_row_that_is_freed_goes_to_who_has_fewer() -> None:
    running = rows_of("a", ROWS - 3) + rows_of("b", 2)
    assert shares(waiting_with(a=20, b=20).next_ones(running, ROWS)) == {"b": 1}


def test_a_full_batch_grows_for_who_has_almost_none_and_for_nobody_else() -> None:
    running = rows_of("a", ROWS)
    waiting = waiting_with(a=20, b=20, c=1)
    assert shares(waiting.next_ones(running, ROWS)) == {"b": 2, "c": 1}
    assert shares(waiting.next_ones([*running, *rows_of("b", 2)], ROWS)) == {"c": 1}


def test_the_batch_grows_to_twice_its_size_at_most() -> None:
    waiting = waiting_with(**{f"org_{at}": 1 for at in range(20)})
    assert len(list(waiting.next_ones(rows_of("a", ROWS), ROWS))) == ROWS


def test_who_has_nothing_in_a_full_queue_may_still_queue() -> None:
    waiting = waiting_with(a=QUEUE)
    with pytest.raises(Error):
        announce(waiting, "a", QUEUE // SHARES + 1)
    announce(waiting, "b", QUEUE)
    with pytest.raises(Error):
        announce(waiting, "b", QUEUE // SHARES + 1)
    for number in range(QUEUE_GROWTH - 2):
        announce(waiting, f"org_{number}", QUEUE)
    with pytest.raises(Error):
        announce(waiting, "z", 1)


def test_who_has_little_in_a_full_queue_may_still_queue_up_to_a_share() -> None:
    """Neither another organization nor its own largest request may fill the queue for an organization's others."""
    waiting = waiting_with(a=QUEUE)
    for organization in "ba":
        for _ in range(QUEUE // SHARES):
            announce(waiting, organization, 1)
        if organization == "b":  # of requests that are all alike, one is the largest
            announce(waiting, organization, 1)
        with pytest.raises(Error):
            announce(waiting, organization, 1)


def test_a_request_that_is_larger_than_the_queue_may_wait_with_little_beside_it() -> None:
    waiting = WaitingRows(QUEUE)
    announce(waiting, "a", QUEUE + 1)
    with pytest.raises(Error):
        announce(waiting, "a", QUEUE // SHARES + 1)


def test_requests_of_one_organization_take_turns() -> None:
    """A long request does not hold back a short one that came later."""
    waiting = waiting_with(a=20)
    put(waiting, "a", 2)
    chosen: list[Any] = list(waiting.next_ones([], 6))
    assert [row.number for row in chosen] == [0, 0, 1, 1, 2, 3]
    waiting.take(chosen[:3])
    chosen = list(waiting.next_ones([], 3))
    assert [row.number for row in chosen] == [1, 2, 3]
    waiting.take(chosen)
    assert len(waiting) == 22 - 6


def test_rows_are_made_when_they_are_about_to_run() -> None:
    made = []

    def rows() -> Iterator[Any]:
        for row in rows_of("a", 100_000, receiver):
            made.append(row)
            yield row

    waiting = WaitingRows(QUEUE)
    receiver: Any = object()
    request = Queued(
        rows(), receiver=receiver, adapter=None, asked_by="a", count=100_000, tokens=100_000
    )
    waiting.announce(request)
    waiting.add(request)
    waiting.take(list(waiting.next_ones([], ROWS)))
    assert len(waiting) == 100_000 - ROWS
    waiting.drop(lambda request: True)
    assert len(waiting) == 0
    assert len(made) <= ROWS + 1  # the next one was looked at
    announce(waiting, "a", QUEUE)


def test_what_is_taken_put_back_and_dropped_is_counted() -> None:
    waiting = waiting_with(a=3, b=2)
    chosen = list(waiting.next_ones([], 4))
    waiting.take(chosen)
    assert len(waiting) == 1
    waiting.put_back(chosen)
    assert list(waiting.next_ones([], 4)) == chosen
    waiting.drop(lambda request: request.asked_by == "a")
    assert (len(waiting), {request.asked_by for request in waiting}) == (2, {"b"})
    waiting.drop(lambda request: True)
    assert len(waiting) == 0


def test_a_request_without_a_row_does_not_wait_for_anothers_many() -> None:
    """A full batch grows by the first row of each, up to half of its size."""
    waiting = WaitingRows(QUEUE)
    many = put(waiting, "a", ROWS + 20)
    running = list(waiting.next_ones([], ROWS))
    waiting.take(running)
    for _ in range(ROWS):
        put(waiting, "a", 1)
    chosen = list(waiting.next_ones(running, ROWS))
    assert len(chosen) == ROWS // 2
    assert all(row.is_extra and row.receiver is not many.receiver for row in chosen)
    waiting.take(chosen)
    # An extra row's end makes room for another one, and one of the many's for a request with fewer.
    (extra,) = waiting.next_ones([*running, *chosen[1:]], ROWS)
    assert extra.is_extra
    (place,) = waiting.next_ones([*running[1:], *chosen], ROWS)
    assert not place.is_extra
    assert place.receiver is not many.receiver


def test_the_batch_does_not_grow_for_requests_of_one_row_each() -> None:
    waiting = WaitingRows(QUEUE)
    for _ in range(2 * ROWS):
        put(waiting, "a", 1)
    chosen = list(waiting.next_ones([], ROWS))
    assert len(chosen) == ROWS
    waiting.take(chosen)
    assert list(waiting.next_ones(chosen, ROWS)) == []
    assert len(list(waiting.next_ones(chosen[1:], ROWS))) == 1


def test_extra_rows_of_an_organization_take_no_place_of_anothers() -> None:
    """Beside an organization with extra rows, another one gets its places again until both run as many."""
    many = rows_of("b", ROWS // 2, object())
    extras = rows_of("b", ROWS // 4)
    for row in extras:
        row.is_extra = True
    waiting = WaitingRows(QUEUE)
    for _ in range(3):
        put(waiting, "b", 1)
        put(waiting, "a", 1)
    freed = ROWS // 2 - 1
    (row,) = waiting.next_ones([*many, *extras, *rows_of("a", freed)], ROWS)
    assert (row.asked_by, row.is_extra) == ("a", False)
    (row,) = waiting.next_ones([*many[1:], *extras, *rows_of("a", freed + 1)], ROWS)
    assert (row.asked_by, row.is_extra) == ("a", False)


async def steps_until_answered(asking: str, requests: int, rows: int, tokens: int) -> int:
    """Fill rows and queue for `org_a` with long answers; return how many steps one more token takes."""
    limits = Limits(waiting_tokens=64 * 1024)
    engine = Engine(Settings(limits=limits))
    try:
        await engine.load_base("demo", demo_models.base_dir())
        served = engine.bases["demo"]
        flood = [start(served, None, ["hi"] * rows, tokens, "org_a") for _ in range(requests)]
        deadline = time.monotonic() + 60
        while served.steps.counts()[0] < limits.rows:
            assert time.monotonic() < deadline, "the rows are never full"
            await asyncio.sleep(0.01)
        steps = 0

        def count(*_: Any) -> None:
            nonlocal steps
            steps += 1

        next(iter(served.base.layers.values())).base.register_forward_hook(count)
        answer = start(served, None, ["hi"], 1, asking)
        async with asyncio.timeout(60):
            await texts_of(answer)
        taken = steps
        for one in flood:
            one.abandon()
            one.close()
        return taken
    finally:
        engine.stop()


@pytest.mark.parametrize("asking", ["org_a", "org_b"])
def test_a_request_waits_for_a_few_steps_only(asking: str) -> None:
    """Whoever fills the batch with requests of many rows."""
    taken = asyncio.run(steps_until_answered(asking, 3, 16, 1500))
    print(f"{taken} steps until the token of {asking}")
    assert taken <= 6


def test_control_beside_requests_of_one_row_each_it_waits_for_its_turn() -> None:
    assert asyncio.run(steps_until_answered("org_a", 48, 1, 60)) > 40

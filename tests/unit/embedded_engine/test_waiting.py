"""How the batch's rows are shared between organizations."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import demo_models
from tests.unit.embedded_engine.test_adapters import start, texts_of

from tunewarden.embedded_engine.engine import Engine, Settings
from tunewarden.embedded_engine.prefill import Limits
from tunewarden.embedded_engine.waiting import QUEUE_GROWTH, SHARES, Queued, WaitingRows
from tunewarden.errors import Error

ROWS, QUEUE = 8, 64


def rows_of(organization: str, count: int) -> list[Any]:
    return [
        SimpleNamespace(asked_by=organization, number=at, prompt=[1], receiver=None, adapter=None)
        for at in range(count)
    ]


def request_of(organization: str, count: int) -> Queued:
    """Return a request of so many rows, each of which counts for one token."""
    rows = rows_of(organization, count)
    facts: Any = {"receiver": None, "adapter": None, "asked_by": organization}
    return Queued(rows, **facts, count=count, tokens=count)


def waiting_with(**counts: int) -> WaitingRows:
    waiting = WaitingRows(QUEUE)
    for organization, count in counts.items():
        waiting.announce(organization, count, count)
        waiting.add(request_of(organization, count))
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
        waiting.announce("a", 1, 1)
    waiting.announce("b", 1, QUEUE)
    with pytest.raises(Error):
        waiting.announce("b", 1, 1)
    for number in range(QUEUE_GROWTH - 2):
        waiting.announce(f"org_{number}", 1, QUEUE)
    with pytest.raises(Error):
        waiting.announce("z", 1, 1)


def test_who_has_little_in_a_full_queue_may_still_queue_up_to_a_share() -> None:
    """Several requests of one organization must not be refused because another one fills the queue."""
    waiting = waiting_with(a=QUEUE)
    for _ in range(QUEUE // SHARES):
        waiting.announce("b", 1, 1)
    with pytest.raises(Error):
        waiting.announce("b", 1, 1)
    with pytest.raises(Error):
        waiting.announce("a", 1, 1)


def test_a_request_that_is_larger_than_the_queue_waits_alone() -> None:
    waiting = WaitingRows(QUEUE)
    waiting.announce("a", 1, QUEUE + 1)
    with pytest.raises(Error):
        waiting.announce("a", 1, 1)


def test_requests_of_one_organization_take_turns() -> None:
    """A long request does not hold back a short one that came later."""
    waiting = waiting_with(a=20)
    waiting.announce("a", 2, 2)
    waiting.add(request_of("a", 2))
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
        for row in rows_of("a", 100_000):
            made.append(row)
            yield row

    waiting = WaitingRows(QUEUE)
    facts: Any = {"receiver": None, "adapter": None, "asked_by": "a"}
    waiting.announce("a", 100_000, 100_000)
    waiting.add(Queued(rows(), **facts, count=100_000, tokens=100_000))
    waiting.take(list(waiting.next_ones([], ROWS)))
    assert (len(made), len(waiting)) == (ROWS, 100_000 - ROWS)
    waiting.drop(lambda request: True)
    assert (len(made), len(waiting)) == (ROWS, 0)
    waiting.announce("a", 1, QUEUE)


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


async def steps_until_answered(asking: str, tokens: int) -> int:
    """Fill rows and queue for `org_a` with long answers; return how many steps one more token takes."""
    limits = Limits(waiting_tokens=64 * 1024)
    engine = Engine(Settings(limits=limits))
    try:
        await engine.load_base("demo", demo_models.base_dir())
        served = engine.bases["demo"]
        flood = [start(served, None, ["hi"] * 16, tokens, "org_a") for _ in range(3)]
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


def test_another_organizations_request_waits_for_a_few_steps_only() -> None:
    taken = asyncio.run(steps_until_answered("org_b", 1500))
    print(f"{taken} steps until the other organization's token")
    assert taken <= 6


def test_control_the_same_organizations_request_waits_for_its_turn() -> None:
    assert asyncio.run(steps_until_answered("org_a", 60)) > 40

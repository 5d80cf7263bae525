"""Organizations take turns in the threads for slow work."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from tunewarden.embedded_engine.fair_threads import WAITING_MAX, FairThreads
from tunewarden.errors import Error

SECONDS = 20


async def asked(threads: FairThreads, organization: str, work: Callable[[], None]) -> None:
    async with asyncio.timeout(SECONDS):
        await threads.run(organization, work)


def ask(
    threads: FairThreads, organization: str, work: Callable[[], None]
) -> "asyncio.Future[None]":
    return asyncio.ensure_future(asked(threads, organization, work))


def test_anothers_work_waits_for_none_of_what_fills_a_queue() -> None:
    """The hostile one has one thread of two, whatever it asks for; two honest ones take turns in the other."""

    async def run() -> list[str]:
        threads, ended = FairThreads(2, "x"), list[str]()
        held = {"hostile": threading.Event(), "other": threading.Event()}

        def hold(name: str) -> None:
            held[name].wait(SECONDS)
            ended.append(name)

        hostile = [ask(threads, "hostile", partial(hold, "hostile")) for _ in range(5)]
        other = ask(threads, "other", partial(hold, "other"))
        await asyncio.sleep(0)
        honest = [ask(threads, name, partial(ended.append, name)) for name in "aaabbb"]
        await asyncio.sleep(0)
        held["other"].set()
        await asyncio.gather(other, *honest)
        held["hostile"].set()
        await asyncio.gather(*hostile)
        return ended

    assert asyncio.run(run()) == ["other", *"ababab", *["hostile"] * 5]


def test_what_work_raises_is_raised_and_the_next_runs() -> None:
    async def run() -> None:
        threads, ran = FairThreads(1, "x"), list[int]()

        def fail() -> None:
            raise ValueError("x")

        failing = ask(threads, "a", fail)
        await asked(threads, "a", lambda: ran.append(1))
        with pytest.raises(ValueError, match="x"):
            await failing
        assert ran == [1]

    asyncio.run(run())


def test_an_organizations_queue_is_bounded_and_who_leaves_is_passed_over() -> None:
    async def run() -> None:
        threads, may_end, ran = FairThreads(1, "x"), threading.Event(), list[int]()
        first = ask(threads, "a", lambda: void(may_end.wait(SECONDS)))
        await asyncio.sleep(0)
        waiting = [ask(threads, "a", partial(ran.append, at)) for at in range(WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(Error, match="overloaded"):
            await asked(threads, "a", lambda: None)
        waiting[0].cancel()
        await asyncio.sleep(0)
        may_end.set()
        await asyncio.gather(first, *waiting[1:])
        assert ran == list(range(1, WAITING_MAX))

    asyncio.run(run())


def void(_: object) -> None:
    return

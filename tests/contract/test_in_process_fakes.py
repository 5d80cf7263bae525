"""The fakes that stand in for processes keep the rules of the ports; the fence, those of the real one."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.clock import HandClock
from tests.fakes.engine import FakeEngine
from tests.fakes.fence import FakeFence, Floor

from tunewarden.clock import SystemClock
from tunewarden.errors import Error
from tunewarden.serving.engine import Eviction
from tunewarden.serving.fence import Ending
from tunewarden.serving.kernel_locks import KernelLockFence

AnyFence = FakeFence | KernelLockFence
NewFence = Callable[[], AnyFence]


@pytest.fixture(params=["fake", "kernel locks"])
def new_fence(request: pytest.FixtureRequest, tmp_path: Path) -> NewFence:
    clock, floor = SystemClock(), Floor()
    if request.param == "fake":
        return lambda: FakeFence(floor, clock)
    return lambda: KernelLockFence(tmp_path, clock)


def test_a_fence_waits_until_everything_that_began_has_ended(new_fence: NewFence) -> None:
    worker, deleter = new_fence(), new_fence()
    worker.join()
    assert worker.begin(7)
    assert worker.begin(7)
    found: list[Ending] = []
    thread = threading.Thread(
        target=lambda: found.extend(one.how for one in deleter.fence(7, within_seconds=30))
    )
    thread.start()
    for _ in range(2):
        thread.join(0.05)
        assert thread.is_alive()
        worker.end(7)
    thread.join(30)
    assert found == [Ending.RELEASED]


def test_other_models_and_other_workers_are_not_waited_for(new_fence: NewFence) -> None:
    workers, deleter = [new_fence(), new_fence()], new_fence()
    for worker in workers:
        worker.join()
    assert workers[0].begin(8)
    assert [one.how for one in deleter.fence(7, within_seconds=30)] == [Ending.RELEASED] * 2
    assert workers[1].begin(7)


def test_only_who_joined_may_begin(new_fence: NewFence) -> None:
    with pytest.raises(RuntimeError, match="joined"):
        new_fence().begin(1)


def test_a_worker_that_holds_on_is_killed_and_holds_nothing() -> None:
    floor, clock = Floor(), HandClock()
    worker, deleter = FakeFence(floor, clock), FakeFence(floor, clock)
    worker.join("w")
    assert worker.begin(7)
    assert [one.how for one in deleter.fence(7, within_seconds=0.5)] == [Ending.KILLED]
    assert clock.monotonic() > 0.5
    assert floor.workers == []
    assert not floor.holding


def test_an_engine_that_evicted_a_model_refuses_it_until_it_starts_anew() -> None:
    engine = FakeEngine(HandClock())
    assert engine.load("m_1")
    assert engine.evict("m_1", within_seconds=1).aborted == 1
    assert not engine.load("m_1")
    engine.hangs = True
    assert engine.evict("m_2", within_seconds=1).how is Eviction.RESTARTED
    assert engine.load("m_1")
    engine.failures = 1
    with pytest.raises(Error, match="let go"):
        engine.evict("m_1", within_seconds=1)

"""What every fence does: the one over kernel locks, with real processes that serve, and the one in this process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from tests.fakes.fence import FakeFence, Floor
from tests.support.serving_processes import PATIENCE_SECONDS, Fencing, Worker, endings

from tunewarden.clock import SystemClock
from tunewarden.serving.fence import Ending, Fence
from tunewarden.serving.kernel_locks import KernelLockFence


class Serving(Protocol):
    """A worker that a test can tell to serve, to hang, or to die."""

    def begin(self, n: int) -> bool: ...

    def end(self, n: int) -> None: ...

    def hang(self) -> None: ...

    def close(self) -> None: ...


class Host(Protocol):
    """Where workers serve and fences come from."""

    def worker(self) -> Serving:
        """Start a worker that has joined."""

    def fence(self) -> Fence:
        """Return a fence of another process than any worker's."""


class Processes:
    """Each worker a process, over kernel locks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.running = ExitStack()

    def worker(self) -> Worker:
        worker = Worker(self._directory)
        self.running.callback(worker.close)
        return worker

    def fence(self) -> KernelLockFence:
        return KernelLockFence(self._directory, SystemClock())


class _Object(FakeFence):
    def hang(self) -> None:
        """It is told nothing any more, and so holds what it holds."""

    def close(self) -> None:
        self.floor.kill(self.name)


class OneProcess:
    """Each worker an object on one floor."""

    def __init__(self) -> None:
        self._floor = Floor()

    def worker(self) -> _Object:
        worker = _Object(self._floor, SystemClock())
        worker.join()
        return worker

    def fence(self) -> FakeFence:
        return FakeFence(self._floor, SystemClock())


@pytest.fixture(params=["kernel locks", "fake"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    if request.param == "fake":
        yield OneProcess()
        return
    processes = Processes(tmp_path)
    with processes.running:
        yield processes


def test_without_workers_a_fence_returns_at_once(host: Host) -> None:
    assert endings(host.fence(), 1) == []


def test_workers_that_do_not_serve_the_model_release_it_at_once(host: Host) -> None:
    one, other, fence = host.worker(), host.worker(), host.fence()
    assert one.begin(1)
    assert other.begin(2)
    assert endings(fence, 3) == [Ending.RELEASED] * 2
    names = [worker.worker for worker in fence.fence(3, within_seconds=1)]
    assert len(set(names)) == 2


def test_a_fence_waits_until_the_last_begin_has_its_end(host: Host) -> None:
    worker = host.worker()
    assert worker.begin(7)
    assert worker.begin(7)
    fencing = Fencing(host.fence(), 7)
    worker.end(7)
    time.sleep(0.1)
    assert fencing.is_alive(), "one begin is still without its end"
    worker.end(7)
    fencing.join(PATIENCE_SECONDS)
    assert fencing.endings == [Ending.RELEASED]


def test_a_worker_that_was_let_go_may_begin_again_on_another_model(host: Host) -> None:
    worker, fence = host.worker(), host.fence()
    for n in range(1, 50):
        assert worker.begin(n)
        worker.end(n)
        assert endings(fence, n) == [Ending.RELEASED]


def test_a_worker_that_holds_on_is_killed_after_the_bound_and_said_to_be(host: Host) -> None:
    hanging, well, fence = host.worker(), host.worker(), host.fence()
    assert hanging.begin(1)
    hanging.hang()
    began = time.monotonic()
    found = endings(fence, 1, within=0.3)
    assert time.monotonic() - began >= 0.3
    assert sorted(found) == [Ending.KILLED, Ending.RELEASED]
    assert well.begin(1), "the other one lives"
    assert sorted(endings(fence, 2)) == [Ending.GONE, Ending.RELEASED]


def test_a_worker_that_hangs_and_does_not_serve_the_model_is_left_alone(host: Host) -> None:
    hanging = host.worker()
    assert hanging.begin(1)
    hanging.hang()
    assert endings(host.fence(), 2) == [Ending.RELEASED]
    assert endings(host.fence(), 2) == [Ending.RELEASED], "it was not killed"


def test_a_worker_that_died_while_it_served_is_gone_and_swept(host: Host) -> None:
    dead, well, fence = host.worker(), host.worker(), host.fence()
    assert dead.begin(1)
    assert well.begin(1)
    dead.close()
    well.end(1)
    assert sorted(endings(fence, 1)) == [Ending.GONE, Ending.RELEASED]
    assert fence.sweep() == 1
    assert fence.sweep() == 0
    assert endings(fence, 1) == [Ending.RELEASED]
    assert well.begin(2), "the living one was left"


def test_a_worker_that_dies_while_a_fence_waits_for_it_ends_the_wait(host: Host) -> None:
    worker = host.worker()
    assert worker.begin(1)
    fencing = Fencing(host.fence(), 1)
    worker.close()
    fencing.join(PATIENCE_SECONDS)
    assert fencing.endings == [Ending.GONE]


def test_a_worker_that_joins_while_a_fence_runs_is_not_waited_for(host: Host) -> None:
    """It can only begin after it joined, and then reads the state that was committed before."""
    first = host.worker()
    assert first.begin(1)
    fencing = Fencing(host.fence(), 1)
    late = host.worker()
    late.begin(1)
    first.end(1)
    fencing.join(PATIENCE_SECONDS)
    assert fencing.endings == [Ending.RELEASED]


def test_a_begin_that_meets_a_fence_is_refused(serving_here: Callable[[], Fence]) -> None:
    serving = serving_here()
    serving.join()
    refused = 0
    stop = threading.Event()

    def fence_again_and_again() -> None:
        other = serving_here()
        while not stop.is_set():
            other.fence(1, within_seconds=5)

    fencing = threading.Thread(target=fence_again_and_again)
    fencing.start()
    began = 0
    deadline = time.monotonic() + 20
    while (refused == 0 or began < 1000) and time.monotonic() < deadline:
        if serving.begin(1):
            began += 1
            serving.end(1)
        else:
            refused += 1
    stop.set()
    fencing.join()
    print(f"{began} begins, {refused} refused")
    assert refused > 0
    assert serving.begin(1), "after the fence it is free again"


@pytest.fixture(params=["kernel locks", "fake"])
def serving_here(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Fence]:
    """Return what makes fences that serve and delete in this process."""
    clock, floor = SystemClock(), Floor()
    if request.param == "fake":
        return lambda: FakeFence(floor, clock)
    return lambda: KernelLockFence(tmp_path, clock)


def test_only_who_joined_may_begin(serving_here: Callable[[], Fence]) -> None:
    with pytest.raises(RuntimeError, match="joined"):
        serving_here().begin(1)


def test_room_is_set_aside_for_workers_and_they_join_in_it(
    serving_here: Callable[[], Fence],
) -> None:
    serving_here().reserve(2)
    for _ in range(2):
        serving_here().join()
    assert endings(serving_here(), 1) == [Ending.RELEASED] * 2


def test_a_fence_tells_whether_a_worker_serves_a_model_and_takes_nothing(host: Host) -> None:
    one, other, fence = host.worker(), host.worker(), host.fence()
    assert not fence.is_held(1)
    assert one.begin(1)
    assert fence.is_held(1)
    assert not fence.is_held(2)
    assert other.begin(1), "who looks holds nothing"
    one.end(1)
    assert fence.is_held(1)
    other.end(1)
    assert not fence.is_held(1)

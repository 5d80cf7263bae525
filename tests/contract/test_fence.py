"""The fence over kernel locks, with real processes that serve."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import is_alive, wait_until

from tunewarden.clock import SystemClock
from tunewarden.errors import Error, Kind
from tunewarden.serving.fence import Ending
from tunewarden.serving.kernel_locks import KernelLockFence

# A worker that does what it is told on its standard input, and says what came of it.
WORKER = """
import sys
from pathlib import Path
from tunewarden.clock import SystemClock
from tunewarden.serving.kernel_locks import KernelLockFence
fence = KernelLockFence(Path(sys.argv[1]), SystemClock())
fence.join()
print("joined", flush=True)
for line in sys.stdin:
    verb, n = line.split()
    print(getattr(fence, verb)(int(n)), flush=True)
"""


class Worker:
    """One process that serves."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._said() == "joined"

    def _said(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 10)
        assert ready, "the worker says nothing"
        return self.process.stdout.readline().strip()

    def tell(self, verb: str, n: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {n}\n")

    def begin(self, n: int) -> bool:
        self.tell("begin", n)
        return self._said() == "True"

    def end(self, n: int) -> None:
        self.tell("end", n)
        self._said()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def fence(tmp_path: Path) -> KernelLockFence:
    return KernelLockFence(tmp_path, SystemClock())


@contextlib.contextmanager
def workers(directory: Path, count: int) -> Iterator[list[Worker]]:
    running = [Worker(directory) for _ in range(count)]
    try:
        yield running
    finally:
        for worker in running:
            worker.close()


def _endings(fence: KernelLockFence, n: int, within: float = 5.0) -> list[Ending]:
    return [one.how for one in fence.fence(n, within_seconds=within)]


class Fencing(threading.Thread):
    """A fence in a thread of its own, so that one can see whether it has returned."""

    def __init__(self, fence: KernelLockFence, n: int) -> None:
        super().__init__()
        self._fence = fence
        self._n = n
        self.endings: list[Ending] = []
        self.start()

    def run(self) -> None:
        self.endings = _endings(self._fence, self._n)


def test_without_workers_a_fence_returns_at_once(fence: KernelLockFence) -> None:
    assert _endings(fence, 1) == []


def test_workers_that_do_not_serve_the_model_release_it_at_once(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 2) as (one, other):
        assert one.begin(1)
        assert other.begin(2)
        assert _endings(fence, 3) == [Ending.RELEASED] * 2
        names = [worker.worker for worker in fence.fence(3, within_seconds=1)]
        assert len(set(names)) == 2


def test_a_fence_waits_until_the_last_begin_has_its_end(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 1) as (worker,):
        assert worker.begin(7)
        assert worker.begin(7)
        fencing = Fencing(fence, 7)
        worker.end(7)
        time.sleep(0.1)
        assert fencing.is_alive(), "one begin is still without its end"
        ended_at = time.monotonic()
        worker.end(7)
        fencing.join(5)
        assert fencing.endings == [Ending.RELEASED]
        assert time.monotonic() - ended_at < 1


def test_a_worker_that_was_let_go_may_begin_again_on_another_model(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 1) as (worker,):
        for n in range(1, 50):
            assert worker.begin(n)
            worker.end(n)
            assert _endings(fence, n) == [Ending.RELEASED]


def test_a_stopped_worker_is_killed_after_the_bound_and_said_to_be(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 2) as (stopped, well):
        assert stopped.begin(1)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        endings = _endings(fence, 1, within=0.3)
        took = time.monotonic() - began
        assert sorted(endings) == [Ending.KILLED, Ending.RELEASED]
        assert 0.3 <= took < 2
        assert not is_alive(stopped.process.pid)
        assert well.begin(1), "the other one lives"


def test_a_stopped_worker_that_does_not_serve_the_model_is_left_alone(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 1) as (stopped,):
        assert stopped.begin(1)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        assert _endings(fence, 2) == [Ending.RELEASED]
        assert is_alive(stopped.process.pid)


def test_a_worker_that_died_while_it_served_is_gone_and_swept(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 2) as (dead, well):
        assert dead.begin(1)
        assert well.begin(1)
        dead.close()
        well.end(1)
        assert sorted(_endings(fence, 1)) == [Ending.GONE, Ending.RELEASED]
        assert fence.sweep() == 1
        assert fence.sweep() == 0
        assert _endings(fence, 1) == [Ending.RELEASED]
        assert well.begin(2), "the living one's file was left"


@pytest.mark.parametrize("content", [b"", b"\0" * 40])
def test_what_a_power_cut_leaves_of_a_workers_file_is_gone_and_swept(
    fence: KernelLockFence, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "old.worker").write_bytes(content)
    assert _endings(fence, 1) == [Ending.GONE]
    assert fence.sweep() == 1
    assert not list(tmp_path.iterdir())


def test_a_worker_that_dies_while_a_fence_waits_for_it_ends_the_wait(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 1) as (worker,):
        assert worker.begin(1)
        fencing = Fencing(fence, 1)
        worker.close()
        fencing.join(5)
        assert fencing.endings == [Ending.GONE]


def test_a_worker_that_joins_while_a_fence_runs_is_not_waited_for(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    """It can only begin after it joined, and then reads the state that was committed before."""
    with workers(tmp_path, 1) as (first,):
        assert first.begin(1)
        fencing = Fencing(fence, 1)
        with workers(tmp_path, 1) as (late,):
            assert late.begin(1)
            first.end(1)
            fencing.join(5)
            assert fencing.endings == [Ending.RELEASED]


def test_nobody_begins_while_a_fence_holds_the_model(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    """Two workers: the fence has one and waits for the other; the one must not begin meanwhile."""
    with workers(tmp_path, 2) as both:
        order = sorted(tmp_path.glob("*.*"))
        # Which of the two is fenced first is told by its file's name.
        pids = [int(path.read_text().split('"pid": ')[1].split(",")[0]) for path in order]
        first, second = sorted(both, key=lambda one: pids.index(one.process.pid))
        assert second.begin(1)
        fencing = Fencing(fence, 1)
        time.sleep(0.05)
        assert fencing.is_alive()
        # The first one was let go again already: it reads `deleting` inside, in the product.
        assert first.begin(1)
        first.end(1)
        # The second cannot get more: it counts on top of what it holds.
        assert second.begin(1)
        second.end(1)
        second.end(1)
        fencing.join(5)
        assert fencing.endings == [Ending.RELEASED] * 2


def test_a_begin_that_meets_a_fence_is_refused(tmp_path: Path) -> None:
    serving = KernelLockFence(tmp_path, SystemClock())
    serving.join()
    refused = 0
    stop = threading.Event()

    def fence_again_and_again() -> None:
        other = KernelLockFence(tmp_path, SystemClock())
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


def test_a_process_that_holds_the_model_itself_cannot_fence_it_and_says_so(tmp_path: Path) -> None:
    serving = KernelLockFence(tmp_path, SystemClock())
    serving.join()
    assert serving.begin(1)
    with pytest.raises(Error) as caught:
        serving.fence(1, within_seconds=0.05)
    assert caught.value.kind is Kind.UNAVAILABLE
    serving.end(1)
    assert _endings(serving, 1) == [Ending.RELEASED]


def test_only_who_joined_may_begin(fence: KernelLockFence) -> None:
    with pytest.raises(RuntimeError, match="joined"):
        fence.begin(1)


def test_a_fence_never_kills_another_process_that_got_the_number(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 1) as (worker,):
        assert worker.begin(1)
        path = next(tmp_path.glob("*.*"))
        bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        content = path.read_text().replace(str(worker.process.pid), str(bystander.pid))
        path.write_text(content)
        with pytest.raises(Error):
            fence.fence(1, within_seconds=0.05)
        assert is_alive(bystander.pid)
        bystander.kill()
        bystander.wait()


def test_fences_and_begins_by_the_thousand_never_overlap(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    """The state is a file that the deleter writes first and the worker reads inside its begin."""
    script = WORKER.partition("for line")[0] + (
        "begins = bad = 0\n"
        "for n in range(1, 401):\n"
        "    while not Path(sys.argv[1], f'deleted-{n}').exists():\n"
        "        if fence.begin(n):\n"
        "            served = not Path(sys.argv[1], f'deleted-{n}').exists()\n"
        "            bad += served and Path(sys.argv[1], f'answered-{n}').exists()\n"
        "            begins += 1\n"
        "            fence.end(n)\n"
        "print(begins, bad, flush=True)\n"
    )
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in racing:
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
    for n in range(1, 401):
        (tmp_path / f"deleted-{n}").touch()
        endings = _endings(fence, n)
        assert set(endings) <= {Ending.RELEASED, Ending.GONE}
        (tmp_path / f"answered-{n}").touch()
    counts = [process.communicate(timeout=30)[0].split() for process in racing]
    begins, bad = (sum(int(one[at]) for one in counts) for at in (0, 1))
    print(f"{begins} begins raced 400 fences, {bad} served after the answer")
    assert begins > 0
    assert bad == 0
    wait_until(lambda: fence.sweep() == 0, "both are swept")

"""The fence over kernel locks, beside what `test_fence.py` asks of every fence: its files, its processes, its races."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.servers import is_alive, wait_until
from tests.support.serving_processes import WORKER, Fencing, endings, workers

from tunewarden.clock import SystemClock
from tunewarden.errors import Error, Kind
from tunewarden.serving.fence import Ending
from tunewarden.serving.kernel_locks import KernelLockFence


@pytest.fixture
def fence(tmp_path: Path) -> KernelLockFence:
    return KernelLockFence(tmp_path, SystemClock())


@pytest.mark.parametrize("content", [b"", b"\0" * 40])
def test_what_a_power_cut_leaves_of_a_workers_file_is_gone_and_swept(
    fence: KernelLockFence, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "old.worker").write_bytes(content)
    assert endings(fence, 1) == [Ending.GONE]
    assert fence.sweep() == 1
    assert not list(tmp_path.iterdir())


def test_nobody_begins_while_a_fence_holds_the_model(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    """Two workers: the fence has one and waits for the other; the one must not begin meanwhile."""
    with workers(tmp_path, 2) as both:
        order = sorted(tmp_path.glob("*.worker"))
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


def test_a_process_that_holds_the_model_itself_cannot_fence_it_and_says_so(tmp_path: Path) -> None:
    serving = KernelLockFence(tmp_path, SystemClock())
    serving.join()
    assert serving.begin(1)
    with pytest.raises(Error) as caught:
        serving.fence(1, within_seconds=0.05)
    assert caught.value.kind is Kind.UNAVAILABLE
    serving.end(1)
    assert endings(serving, 1) == [Ending.RELEASED]


def test_a_fence_never_kills_another_process_that_got_the_number(
    fence: KernelLockFence, tmp_path: Path
) -> None:
    with workers(tmp_path, 1) as (worker,):
        assert worker.begin(1)
        path = next(tmp_path.glob("*.worker"))
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
        found = endings(fence, n)
        assert set(found) <= {Ending.RELEASED, Ending.GONE}
        (tmp_path / f"answered-{n}").touch()
    counts = [process.communicate(timeout=30)[0].split() for process in racing]
    begins, bad = (sum(int(one[at]) for one in counts) for at in (0, 1))
    print(f"{begins} begins raced 400 fences, {bad} served after the answer")
    assert begins > 0
    assert bad == 0
    wait_until(lambda: fence.sweep() == 0, "both are swept")

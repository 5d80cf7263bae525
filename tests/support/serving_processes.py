"""Processes that serve, over the fence of kernel locks, and do what a test tells them."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tunewarden.serving.fence import Ending, Fence

PATIENCE_SECONDS = 30.0  # of a busy machine
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

    def hang(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def workers(directory: Path, count: int) -> Iterator[list[Worker]]:
    running = [Worker(directory) for _ in range(count)]
    try:
        yield running
    finally:
        for worker in running:
            worker.close()


def endings(fence: Fence, n: int, within: float = 5.0) -> list[Ending]:
    return [one.how for one in fence.fence(n, within_seconds=within)]


class Fencing(threading.Thread):
    """A fence in a thread of its own, so that one can see whether it has returned."""

    def __init__(self, fence: Fence, n: int) -> None:
        super().__init__()
        self._fence = fence
        self._n = n
        self.endings: list[Ending] = []
        self.start()

    def run(self) -> None:
        self.endings = endings(self._fence, self._n, within=PATIENCE_SECONDS)

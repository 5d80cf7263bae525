"""Fence on one host by OFD locks: one lock file a worker, byte 0 = alive, byte n+1 = model n.

A worker that serves model n holds its own byte shared; the deletion, committed first, takes that
byte of every worker exclusively. After it held them all, each worker either has ended or will begin
later and then reads the committed state. No clocks: a dead process's locks are dropped by the
kernel. One file a worker, because the kernel scans a file's locks one by one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewarden import processes
from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.ids import token
from tunewarden.locks import ByteLocks
from tunewarden.serving.fence import Ending, FencedWorker

ALIVE = 0
# Not `.lock`: other locks lie beside these and are no workers (I17).
SUFFIX = ".worker"
POLL_SECONDS = 0.0005
DEATH_SECONDS = 2.0


class KernelLockFence:
    """The fence for the workers whose lock files lie in one directory on a local file system."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._own: ByteLocks | None = None
        self._serving: dict[int, int] = {}

    def join(self) -> None:
        """Become a worker. Only then may `begin` be called; from one thread.

        The file gets its final name after its byte 0 is held, so that a deletion can never take it
        for a dead worker's.
        """
        name = token(20)
        unfinished = self._directory / f"{name}.new"
        locks = ByteLocks(unfinished)
        if not locks.try_exclusive(ALIVE):
            raise RuntimeError("a new lock file is held by somebody else")
        locks.write(processes.identity())
        unfinished.rename(self._directory / f"{name}{SUFFIX}")
        self._own = locks

    def begin(self, n: int) -> bool:
        """Begin to serve model `n`; False while a deletion holds its byte."""
        if self._own is None:
            raise RuntimeError("only a process that joined the fence may serve")
        count = self._serving.get(n, 0)
        if count == 0 and not self._own.try_shared(n + 1):
            return False
        self._serving[n] = count + 1
        return True

    def end(self, n: int) -> None:
        """End what one `begin` began; the last one lets go of the model's byte."""
        count = self._serving[n] - 1
        if count:
            self._serving[n] = count
            return
        del self._serving[n]
        if self._own is not None:
            self._own.release(n + 1)

    def fence(self, n: int, *, within_seconds: float) -> list[FencedWorker]:
        """Return when no worker serves model `n`; kill those that hold on for too long."""
        deadline = self._clock.monotonic() + within_seconds
        return [
            FencedWorker(path.stem, self._fence_worker(path, n, deadline))
            for path in sorted(self._directory.glob(f"*{SUFFIX}"))
        ]

    def sweep(self) -> int:
        """Remove the files of dead workers; return how many there were."""
        dead = 0
        for path in self._directory.glob(f"*{SUFFIX}"):
            with _opened(path) as locks:
                # Looked at, not taken: only a worker ever holds this byte, so a fence may go by it.
                if locks is None or locks.is_held_exclusively(ALIVE):
                    continue
                if _has_ended(locks, 0):
                    path.unlink(missing_ok=True)
                    dead += 1
        return dead

    def _fence_worker(self, path: Path, n: int, deadline: float) -> Ending:
        with _opened(path) as locks:
            if locks is None:
                return Ending.GONE
            while not locks.try_exclusive(n + 1):
                if self._clock.monotonic() > deadline:
                    self._kill(locks)
                    return Ending.KILLED
                self._clock.sleep(POLL_SECONDS)
            if locks.is_held_exclusively(ALIVE):
                return Ending.RELEASED
            # Its connections may be open for a moment longer than its locks.
            if not _has_ended(locks, DEATH_SECONDS):
                raise _held()
            return Ending.GONE

    def _kill(self, locks: ByteLocks) -> None:
        """Kill a worker that does not let go, and wait until the kernel has closed all it had open."""
        if processes.kill(locks.read(), within_seconds=DEATH_SECONDS):
            deadline = self._clock.monotonic() + DEATH_SECONDS
            while self._clock.monotonic() < deadline:
                if not locks.is_held_exclusively(ALIVE):
                    return
                self._clock.sleep(POLL_SECONDS)
        raise _held()


def _has_ended(locks: ByteLocks, within_seconds: float) -> bool:
    try:
        return processes.ends(locks.read(), within_seconds=within_seconds)
    except ValueError:
        return True  # A power cut left a file that says nothing: its process is long gone.


def _held() -> Error:
    return Error(
        Kind.UNAVAILABLE,
        "A worker still holds the model; the deletion goes on. Ask again.",
        retry_after_seconds=1,
    )


@contextmanager
def _opened(path: Path) -> Iterator[ByteLocks | None]:
    try:
        locks = ByteLocks(path, create=False)
    except FileNotFoundError:
        yield None
        return
    try:
        yield locks
    finally:
        locks.close()

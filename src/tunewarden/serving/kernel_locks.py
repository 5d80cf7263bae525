"""The fence on one host, by OFD locks: one lock file per worker, byte 0 = alive, byte n+1 = model n.

A worker that serves model n holds that byte of its own file shared; the deletion, committed first, takes that
byte in every worker's file exclusively. After it has held them all, each worker either has ended or will begin
later and then reads the committed state. No clocks: the kernel releases a dead process's
locks. A worker that keeps its lock is killed, after a longer timeout if it is merely busy (I14).
One file per worker, because the kernel scans a file's locks linearly.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tunewarden import processes, pulse, space
from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.ids import token
from tunewarden.locks import ByteLocks
from tunewarden.pulse import Pulse
from tunewarden.serving.fence import Ending, FencedWorker

ALIVE = 0
# Not `.lock`: other lock files in the directory are not workers' (I17).
SUFFIX = ".worker"
SPARE = ".spare"
POLL_SECONDS = 0.0005
DEATH_SECONDS = 2.0


class KernelLockFence:
    """The fence for workers whose lock files are in one directory on a local file system."""

    def __init__(self, directory: Path, clock: Clock, *, alive_seconds: float = 0.0) -> None:
        """`alive_seconds` is the timeout for a worker that is alive, if longer than the fence's own."""
        self._directory = directory
        self._clock = clock
        self._alive_seconds = alive_seconds
        self._own: ByteLocks | None = None
        self._serving: dict[int, int] = {}

    def join(self) -> None:
        """Join as a worker. Required before `begin`, which is single-threaded.

        The file gets its final name after its byte 0 is held, so that a deletion never mistakes it
        for a dead worker's.
        """
        name = token(20)
        unfinished = self._directory / f"{name}.new"
        self._use_spare(unfinished)
        locks = ByteLocks(unfinished)
        if not locks.try_exclusive(ALIVE):
            raise RuntimeError("a new lock file is held by somebody else")
        locks.write(processes.identity())
        pulse.answer(self._directory / f"{name}{pulse.SUFFIX}")
        unfinished.rename(self._directory / f"{name}{SUFFIX}")
        self._own = locks

    def reserve(self, count: int) -> None:
        """Create this many spare files, preallocated for a worker's content. Raises OSError."""
        for _ in range(count - len(list(self._directory.glob(f"*{SPARE}")))):
            space.allocate(self._directory / f"{token(20)}{SPARE}", 4096)

    def _use_spare(self, path: Path) -> None:
        """Rename a spare file to `path`, if there is one: a worker must start on a full disk too. # I20."""
        for spare in self._directory.glob(f"*{SPARE}"):
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                spare.rename(path)
                return

    def begin(self, n: int) -> bool:
        """Take the guard of model `n`; False while a deletion holds its byte."""
        if self._own is None:
            raise RuntimeError("only a process that joined the fence may serve")
        count = self._serving.get(n, 0)
        if count == 0 and not self._own.try_shared(n + 1):
            return False
        self._serving[n] = count + 1
        return True

    def end(self, n: int) -> None:
        """Release what one `begin` took; the last one releases the model's byte."""
        count = self._serving[n] - 1
        if count:
            self._serving[n] = count
            return
        del self._serving[n]
        if self._own is not None:
            self._own.release(n + 1)

    def fence(self, n: int, *, within_seconds: float) -> list[FencedWorker]:
        """Wait until no worker serves model `n`; kill those that keep the guard past the timeout."""
        began = self._clock.monotonic()
        deadlines = began + within_seconds, began + max(within_seconds, self._alive_seconds)
        return [
            FencedWorker(path.stem, self._fence_worker(path, n, *deadlines))
            for path in sorted(self._directory.glob(f"*{SUFFIX}"))
        ]

    def is_held(self, n: int) -> bool:
        """Return whether a worker serves model `n` now: one system call for each worker, which takes nothing."""
        for path in self._directory.glob(f"*{SUFFIX}"):
            with _opened(path) as locks:
                if locks is not None and locks.is_held(n + 1):
                    return True
        return False

    def sweep(self) -> int:
        """Remove the files of dead workers; return their number."""
        dead = 0
        for path in self._directory.glob(f"*{SUFFIX}"):
            with _opened(path) as locks:
                # Test the lock without taking it: a concurrent fence relies on only workers holding this byte.
                if locks is None or locks.is_held_exclusively(ALIVE):
                    continue
                if _has_ended(locks, 0):
                    path.unlink(missing_ok=True)
                    path.with_suffix(pulse.SUFFIX).unlink(missing_ok=True)
                    dead += 1
        return dead

    def _fence_worker(
        self, path: Path, n: int, deadline: float, deadline_if_alive: float
    ) -> Ending:
        with _opened(path) as locks:
            if locks is None:
                return Ending.GONE
            if not locks.try_exclusive(n + 1):
                seen = Pulse(locks.read(), path.with_suffix(pulse.SUFFIX), self._clock)
                with contextlib.closing(seen):
                    while not locks.try_exclusive(n + 1):
                        now, is_felt = self._clock.monotonic(), seen.is_felt()
                        if now > deadline_if_alive or (now > deadline and not is_felt):
                            self._kill(locks)
                            return Ending.KILLED
                        self._clock.sleep(POLL_SECONDS)
            if locks.is_held_exclusively(ALIVE):
                return Ending.RELEASED
            # Its connections may stay open for a moment longer than its locks.
            if not _has_ended(locks, DEATH_SECONDS):
                raise _held()
            return Ending.GONE

    def _kill(self, locks: ByteLocks) -> None:
        """Kill a worker that keeps the guard, and wait until the kernel has closed its descriptors."""
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
        return True  # An empty file is left by a power cut: its process is gone.


def _held() -> Error:
    return Error(
        Kind.UNAVAILABLE,
        "A worker still holds the model; the deletion continues. Please retry.",
        retry_after_seconds=1,
    )


@contextlib.contextmanager
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

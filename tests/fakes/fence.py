"""A fence in this process: workers are objects on one floor, and can be killed."""

import threading
from collections import Counter
from collections.abc import Callable

from tunewarden.clock import Clock
from tunewarden.serving.fence import Ending, FencedWorker

POLL_SECONDS = 0.0005


class Floor:
    """What the workers of one host share: who holds which model, and which are being fenced."""

    def __init__(self) -> None:
        self.holding: Counter[tuple[str, int]] = Counter()
        self.fenced: Counter[int] = Counter()
        self.workers: list[str] = []
        # Ended, and not swept yet.
        self.dead: list[str] = []
        self.joined = 0
        self.lock = threading.Lock()
        self.on_kill: Callable[[str], None] = lambda _: None

    def kill(self, worker: str) -> None:
        """End a worker: it holds nothing any more."""
        with self.lock:
            self.workers.remove(worker)
            self.dead.append(worker)
            for key in [key for key in self.holding if key[0] == worker]:
                del self.holding[key]
        self.on_kill(worker)


class FakeFence:
    """A `Fence`. Without `join` it only deletes."""

    def __init__(self, floor: Floor, clock: Clock) -> None:
        self.floor = floor
        self._clock = clock
        self.name = ""

    def join(self, name: str = "") -> None:
        """Become a worker."""
        with self.floor.lock:
            self.name = name or f"w{self.floor.joined}"
            self.floor.joined += 1
            self.floor.workers.append(self.name)

    def begin(self, n: int) -> bool:
        if self.name not in self.floor.workers:
            raise RuntimeError("only a worker that joined the fence, and lives, may serve")
        with self.floor.lock:
            is_new = not self.floor.holding[self.name, n]
            if is_new and self.floor.fenced[n]:
                return False
            self.floor.holding[self.name, n] += 1
            return True

    def end(self, n: int) -> None:
        with self.floor.lock:
            if self.floor.holding[self.name, n] <= 0:
                raise KeyError(n)
            self.floor.holding[self.name, n] -= 1

    def fence(self, n: int, *, within_seconds: float) -> list[FencedWorker]:
        deadline = self._clock.monotonic() + within_seconds
        with self.floor.lock:
            self.floor.fenced[n] += 1
        try:
            workers = [*self.floor.workers, *self.floor.dead]
            return [FencedWorker(worker, self._wait(worker, n, deadline)) for worker in workers]
        finally:
            with self.floor.lock:
                self.floor.fenced[n] -= 1

    def is_held(self, n: int) -> bool:
        with self.floor.lock:
            return any(model == n and count for (_, model), count in self.floor.holding.items())

    def reserve(self, count: int) -> None:
        """A worker needs no room on this floor."""

    def sweep(self) -> int:
        """Forget the dead workers."""
        with self.floor.lock:
            dead, self.floor.dead = self.floor.dead, []
        return len(dead)

    def _wait(self, worker: str, n: int, deadline: float) -> Ending:
        while self.floor.holding[worker, n]:
            if self._clock.monotonic() > deadline:
                self.floor.kill(worker)
                return Ending.KILLED
            self._clock.sleep(POLL_SECONDS)
        return Ending.RELEASED if worker in self.floor.workers else Ending.GONE

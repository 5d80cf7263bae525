"""Waits until output is flushed. Polls with one timer for all, because neither asyncio nor the kernel notifies.

Each entry is checked again after a quarter of the time that it has waited, so that a client that reads
nothing costs next to nothing. A deletion does not wait for the timer: it aborts (docs/decisions/0007).
"""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

LOOK_SECONDS_MIN = 0.005
LOOK_SECONDS_MAX = 1.0
GROWTH = 0.25

Waiter = tuple[float, int, float, Callable[[], bool], Callable[[], object]]


class Flushes:
    """The waits of one worker, on its event loop."""

    def __init__(self) -> None:
        # A heap of (next check, sequence number, waiting since, predicate, callback).
        self._waiting: list[Waiter] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, is_done: Callable[[], bool], then: Callable[[], object]) -> None:
        """Call `then` soon after `is_done` becomes true."""
        now = asyncio.get_running_loop().time()
        self._push(now, now, is_done, then)
        self._set_timer()

    async def until(self, is_done: Callable[[], bool]) -> None:
        """Return once `is_done` is true."""
        if is_done():
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def then() -> None:
            if not done.done():
                done.set_result(None)

        self.wait(lambda: done.done() or is_done(), then)
        await done

    def _push(
        self, now: float, since: float, is_done: Callable[[], bool], then: Callable[[], object]
    ) -> None:
        pause = min(max((now - since) * GROWTH, LOOK_SECONDS_MIN), LOOK_SECONDS_MAX)
        heapq.heappush(self._waiting, (now + pause, next(self._numbers), since, is_done, then))

    def _set_timer(self) -> None:
        due = self._waiting[0][0]
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        done: list[Callable[[], object]] = []
        while self._waiting and self._waiting[0][0] <= now:
            _, _, since, is_done, then = heapq.heappop(self._waiting)
            if is_done():
                done.append(then)
            else:
                self._push(now, since, is_done, then)
        if self._waiting:
            self._set_timer()
        for then in done:
            then()

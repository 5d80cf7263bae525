"""Threads for slow work that organizations ask for: these take turns, and none has more than one thread at a time.

So what one organization asks for delays another one's only if as many do so at once as there are threads.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tunewarden.embedded_engine.queued import overloaded

# Of one organization.
WAITING_MAX = 256

_Work = tuple[Callable[[], None], "asyncio.Future[None]"]


class FairThreads:
    """Used on one event loop."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._free = threads
        # Each organization's work, the first to have a turn in front.
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()
        self._busy: set[str] = set()

    async def run(self, organization: str, work: Callable[[], None]) -> None:
        """Run `work` when it is its turn; raises what it raises, and Error(UNAVAILABLE) if too much waits."""
        waiting = self._waiting.setdefault(organization, deque())
        if len(waiting) >= WAITING_MAX:
            raise overloaded()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append((work, done))
        self._begin()
        await done

    def _begin(self) -> None:
        """Begin what may run now."""
        for organization in list(self._waiting):
            if not self._free:
                return
            if organization in self._busy:
                continue
            waiting = self._waiting[organization]
            while waiting and waiting[0][1].done():  # who asked has left
                waiting.popleft()
            if not waiting:
                del self._waiting[organization]
                continue
            work, done = waiting.popleft()
            if waiting:
                self._waiting.move_to_end(organization)
            else:
                del self._waiting[organization]
            self._free -= 1
            self._busy.add(organization)
            running = asyncio.get_running_loop().run_in_executor(self._pool, work)
            running.add_done_callback(partial(self._end, organization, done))

    def _end(
        self, organization: str, told: "asyncio.Future[None]", ran: "asyncio.Future[None]"
    ) -> None:
        self._free += 1
        self._busy.discard(organization)
        problem = ran.exception()
        if not told.done():  # who waited may be gone
            if problem is None:
                told.set_result(None)
            else:
                told.set_exception(problem)
        self._begin()

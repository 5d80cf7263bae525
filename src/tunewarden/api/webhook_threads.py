"""Threads of one worker for what waits for others' name servers and receivers, apart from those of other requests."""

from collections import Counter
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio.to_thread
from anyio import CapacityLimiter

from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller

AT_ONCE_MAX = 8
PER_ORGANIZATION_MAX = 2
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class WebhookThreads:
    """Runs a few functions at once, fewer for one organization. On the event loop only."""

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None
        self._running: Counter[str] = Counter()

    async def run(self, function: Callable[[Caller, *Ts], T], caller: Caller, *arguments: *Ts) -> T:
        """Return what a function returns. Raises Error(RATE_LIMITED) if too many run, and what the function raises."""
        # Made here: it belongs to the event loop.
        self._limiter = self._limiter or CapacityLimiter(AT_ONCE_MAX)
        of = caller.organization_id
        if self._running.total() >= AT_ONCE_MAX or self._running[of] >= PER_ORGANIZATION_MAX:
            raise Error(
                Kind.RATE_LIMITED,
                "Too many requests that wait for webhook endpoints. Try again in a moment.",
                retry_after_seconds=1,
            )
        self._running[of] += 1
        try:
            return await anyio.to_thread.run_sync(
                function, caller, *arguments, limiter=self._limiter
            )
        finally:
            self._running[of] -= 1
            self._running += Counter()  # without those at 0

"""The leases on this engine, by its own clock: `tunewarden.engine_protocol.lease` says why they are safe.

There is one for each replica that a gateway knows at this address, mostly one; each adapter belongs to one.

    event                BEGUN     HELD      ENDED
    renew with a nonce   -> HELD   HELD      refused
    renew without        BEGUN     HELD      refused
    end, or time passes  -> ENDED  -> ENDED  ENDED
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from tunewarden.engine_protocol.lease import held_seconds
from tunewarden.ids import token
from tunewarden_vllm import refusals

# Nonces that are still known: more than one is needed only after an answer was lost.
NONCES_MAX = 8
NEVER = float("-inf")
LOOK_SECONDS = 0.1

logger = logging.getLogger(__name__)


def boottime() -> float:
    """Return seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """One lease; `member` is its name. It is held from its first renewal on."""

    def __init__(self, member: str, seconds: float, clock: Callable[[], float]) -> None:
        self.member = member
        self.has_ended = False
        self._clock = clock
        self._held_seconds = held_seconds(seconds)
        self._until = NEVER
        # When it can be renewed no more, if it never was.
        self._waits_until = clock() + self._held_seconds
        self._nonces: OrderedDict[str, float] = OrderedDict()

    def holds(self) -> bool:
        """Return whether its adapters may be used now."""
        return self._clock() < self._until

    @property
    def has_lapsed(self) -> bool:
        """Whether its time is over."""
        return self._clock() >= max(self._until, self._waits_until)

    def renew(self, nonce: str) -> str:
        """Hold it for its time from when the nonce was made; return a new nonce. Raises Refused."""
        made_at = self._nonces.get(nonce)
        if made_at is not None and not self.has_ended and not self.has_lapsed:
            self._until = max(self._until, made_at + self._held_seconds)
        if self.has_ended or self.has_lapsed:
            raise refusals.no_lease()
        return self.new_nonce()

    def new_nonce(self) -> str:
        """Return a nonce that was made now."""
        nonce = token(24)
        self._nonces[nonce] = self._clock()
        if len(self._nonces) > NONCES_MAX:
            self._nonces.popitem(last=False)
        return nonce

    def end(self) -> None:
        """End it at once."""
        self.has_ended = True
        self._until = NEVER


# Overwrites the adapters of a lease that has ended; returns whether all read back as zeros.
Drop = Callable[[Lease], Awaitable[bool]]


class Leases:
    """All of them. For the event loop of vLLM's API server."""

    def __init__(self, clock: Callable[[], float], drop: Drop) -> None:
        self._clock = clock
        self._drop = drop
        self._by_member: dict[str, Lease] = {}
        self._beginning = asyncio.Lock()

    async def begin(self, member: str, seconds: float, replaced: list[str]) -> str | None:
        """Begin a lease when the adapters of those that it replaces are overwritten; return its first nonce.

        None if they do not read back as zeros.
        """
        async with self._beginning:
            for one in (member, *replaced):
                if not await self._ended(one):
                    return None
            lease = self._by_member[member] = Lease(member, seconds, self._clock)
            return lease.new_nonce()

    def renew(self, member: str, nonce: str) -> str:
        """Renew a lease; return a new nonce. Raises Refused."""
        found = self._by_member.get(member)
        if found is None:
            raise refusals.no_lease()
        return found.renew(nonce)

    def held(self, member: str) -> Lease:
        """Return the lease for which a message was sent. Raises Refused if it is not held."""
        found = self._by_member.get(member)
        if found is None or not found.holds():
            raise refusals.no_lease()
        return found

    async def watch(self) -> None:
        """Overwrite the adapters of leases that lapse, until that has succeeded. For a task that runs as long as vLLM."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for member, lease in list(self._by_member.items()):
                if lease.has_lapsed and not lease.has_ended:
                    logger.warning("a lease ended: its adapters are dropped, bases go on")
                if lease.has_lapsed or lease.has_ended:
                    await self._ended(member)

    async def _ended(self, member: str) -> bool:
        lease = self._by_member.get(member)
        if lease is None:
            return True
        lease.end()
        is_clean = await self._drop(lease)
        if is_clean and self._by_member.get(member) is lease:
            del self._by_member[member]
        return is_clean

"""The replicas of one base, as a worker knows them: which are live, what is in flight on each, and where a request goes.

A fine-tuned model goes to the first live replica in its order (rendezvous hashing of its internal id), so that few
replicas load it; to the next one while that has more than its share in flight. A base goes to the least loaded one.

A replica is not live from the first failed connection until a probe is answered. Probes go on with a back-off; until then no request is
sent to it. One that is connected but silent is probed too: what waits there for its first byte is then
sent to another one. All of this is per worker, on its event loop (docs/decisions/0033).
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import Protocol
from weakref import WeakValueDictionary

from tunewarden.engines.port import Engine
from tunewarden.engines.upstream import unavailable
from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base
from tunewarden.registry.model_lookup import Target
from tunewarden.registry.replicas import Replica

BUSY_SECONDS = 1
# A replica takes at most this times the mean in flight before the next one is used.
SHARE = 1.25
# Up to this many it is never too much: another replica would have to load the model for next to nothing.
SMALL_BATCH = 4

NewEngine = Callable[[Base, Replica], Engine]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a replica may be silent before it is probed, how long a probe waits, and the pauses between probes."""

    silent_seconds: float = 2.0
    probe_seconds: float = 5.0
    pause_seconds: float = 0.5
    pause_seconds_max: float = 5.0


class Waiting(Protocol):
    """A request of which no byte of a response has come yet: `routing.Call`."""

    def give_up(self) -> None:
        """Stop waiting: the replica does not answer a probe."""


class Load:
    """How many requests are in flight on an engine, over all bases that are served there."""

    __slots__ = ("__weakref__", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0


# By the engine's address, as long as a base has a replica there.
Loads = WeakValueDictionary[str, Load]


class Link:
    """One engine of a worker. `watched_by` is the fleet of a replica that has others beside it."""

    __slots__ = ("engine", "is_live", "load", "waiting", "watched_by")

    def __init__(self, engine: Engine, load: Load) -> None:
        self.engine = engine
        self.load = load
        self.is_live = True
        self.watched_by: Fleet | None = None
        # Since when each request waits for its first byte, oldest first.
        self.waiting: dict[Waiting, float] = {}


class Fleet:
    """The replicas of one base. `per_engine_max` limits the requests in flight on each."""

    def __init__(
        self, base: Base, new_engine: NewEngine, loads: Loads, *, per_engine_max: int, pace: Pace
    ) -> None:
        self._base = base
        self._new_engine = new_engine
        self._loads = loads
        self._per_engine_max = per_engine_max
        self._pace = pace
        self._links: dict[int, Link] = {}  # by the replica's number
        self._turns = count()
        self._probes: set[asyncio.Task[None]] = set()
        self._probed: set[Link] = set()
        self._is_watching = False

    def choose(self, target: Target, *, other_than: Link | None = None) -> Link:
        """Return where a request goes. Raises Error(UNAVAILABLE) if no replica is live, or each has its most in flight."""
        replicas = target.replicas
        if other_than is None and len(replicas) != len(self._links):
            self._drop_all_but({replica.n for replica in replicas})
        found = {replica.n: self._link(replica) for replica in replicas}
        if len(found) == 1 and other_than is None:
            live = list(found.values())  # There is no choice: the request itself finds out.
        else:
            live = [one for one in found.values() if one.is_live and one is not other_than]
        if not live:
            raise unavailable()
        free = [one for one in live if one.load.in_flight < self._per_engine_max]
        if not free:
            raise engine_busy(self._per_engine_max)
        if len(free) == 1:
            return free[0]
        if target.n is None:
            turn = next(self._turns) % len(free)  # among equals, each in its turn
            return min(free[turn:] + free[:turn], key=_in_flight_of)
        in_flight = 1 + sum(one.load.in_flight for one in free)
        most = max(SMALL_BATCH, math.ceil(SHARE * in_flight / len(free)))
        order = (found[n] for n in ranked(target.engine_model, tuple(found)))
        return next(one for one in order if one in free and one.load.in_flight < most)

    def watch(self, link: Link, call: Waiting) -> None:
        """Watch a request until its first byte; then the caller takes it out of `link.waiting`."""
        loop = asyncio.get_running_loop()
        link.waiting[call] = loop.time()
        if not self._is_watching:
            self._is_watching = True
            loop.call_later(self._pace.silent_seconds, self._look)

    def failed(self, link: Link) -> None:
        """Note that a connection failed: the replica is not live until it answers a probe."""
        if link.is_live:
            link.is_live = False
            self._start_probes(link)

    def _link(self, replica: Replica) -> Link:
        link = self._links.get(replica.n)
        if link is None:
            load = self._loads.setdefault(replica.url, Load())
            link = self._links[replica.n] = Link(self._new_engine(self._base, replica), load)
            self._watch_if_many()
        return link

    def _watch_if_many(self) -> None:
        """Watch replicas only if there are several: with one there is no other to send a request to, so each fails by itself."""
        watched_by = self if len(self._links) > 1 else None
        for link in self._links.values():
            link.watched_by = watched_by

    def _drop_all_but(self, kept: set[int]) -> None:
        """Forget replicas that are gone. What still runs there ends by itself."""
        for n in self._links.keys() - kept:
            self._links.pop(n).engine.upstream.close()
        self._watch_if_many()

    def _look(self) -> None:
        """Probe each replica that has been silent for too long."""
        loop = asyncio.get_running_loop()
        silent_since = loop.time() - self._pace.silent_seconds
        links = list(self._links.values())
        self._is_watching = any(link.waiting for link in links)
        if self._is_watching:
            loop.call_later(self._pace.silent_seconds, self._look)
        for link in links:
            if link.waiting and next(iter(link.waiting.values())) <= silent_since:
                self._start_probes(link)

    def _start_probes(self, link: Link) -> None:
        if link not in self._probed:
            self._probed.add(link)
            task = asyncio.get_running_loop().create_task(self._probe(link))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)

    async def _probe(self, link: Link) -> None:
        """Probe a replica until it answers, or is gone."""
        pace, pause = self._pace, self._pace.pause_seconds
        try:
            while not await link.engine.upstream.answers(within_seconds=pace.probe_seconds):
                link.is_live = False
                for call in list(link.waiting):
                    call.give_up()
                if link not in self._links.values():
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, pace.pause_seconds_max)
            link.is_live = True
        finally:
            self._probed.discard(link)


@lru_cache(maxsize=4096)
def ranked(name: str, replicas: Sequence[int]) -> tuple[int, ...]:
    """Return replicas in a model's order of preference: when one joins or leaves, no two others change places."""
    return tuple(
        sorted(replicas, key=lambda n: blake2b(f"{n} {name}".encode(), digest_size=8).digest())
    )


def engine_busy(most: int) -> Error:
    """Return the error for an engine that has its most requests in flight."""
    return Error(
        Kind.UNAVAILABLE,
        f"Too many concurrent requests for the engine of this model (limit {most}). Please try again shortly.",
        code="engine_busy",
        retry_after_seconds=BUSY_SECONDS,
    )


def _in_flight_of(link: Link) -> int:
    return link.load.in_flight

"""Bases, adapters and their slots: load, evict, abort. The verbs of the engine, without HTTP.

All methods run on one event loop. What touches a model is done by its step loop between two steps.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tunewarden.engine.adapter_files import AdapterWeights, read_and_unlink
from tunewarden.engine.batch import News, StepLoop, not_loaded
from tunewarden.engine.joining import Limits
from tunewarden.engine.lora import BASE_SLOT
from tunewarden.engine.model import Base, Precision
from tunewarden.engine.rows import Row
from tunewarden.errors import Error, Kind


@dataclass(frozen=True, slots=True)
class Settings:
    """`adapters_max` is per base. `rank_max` bounds the rank of any adapter."""

    adapters_max: int = 64
    rank_max: int = 64
    limits: Limits = field(default_factory=Limits)
    precision: Precision = Precision.FLOAT32


@dataclass(frozen=True, slots=True)
class Evicted:
    """What an eviction did: was the adapter in a slot, and how many requests were aborted."""

    was_loaded: bool
    aborted: int


class Served:
    """One base with its step loop. `slots` is ordered by last use and belongs to the step thread."""

    def __init__(
        self, name: str, base: Base, settings: Settings, publish: Callable[[list[News]], None]
    ) -> None:
        self.name = name
        self.base = base
        self.slots: OrderedDict[str, int] = OrderedDict()
        self.slots_max = settings.adapters_max
        self._free = list(range(settings.adapters_max, BASE_SLOT, -1))
        self.steps = StepLoop(base, limits=settings.limits, slot_of=self._slot_of, publish=publish)

    def put(self, name: str, adapter: AdapterWeights) -> None:
        """Load an adapter into a slot, an idle one's if none is free. Call it between steps.

        Raises Error(INVALID), Error(UNAVAILABLE) with code `engine_full`.
        """
        if name in self.slots:
            return
        if not self._free:
            self._evict_idle()
        slot = self._free[-1]
        self.base.write(slot, adapter)
        self._free.pop()
        self.slots[name] = slot

    def take_away(self, name: str) -> Evicted:
        """Abort an adapter's requests; overwrite its weights and prefixes. Call it between steps."""
        aborted = self.steps.drop(lambda row: row.adapter == name, deleted(name))
        self.steps.prefixes.forget(name)
        slot = self.slots.pop(name, None)
        if slot is None:
            return Evicted(was_loaded=False, aborted=aborted)
        self.base.erase(slot)
        self._free.append(slot)
        return Evicted(was_loaded=True, aborted=aborted)

    async def evict(self, name: str) -> Evicted:
        """Take an adapter away between two steps; return when that is done."""
        done = self.steps.between_steps(lambda: self.take_away(name), is_urgent=True)
        return await asyncio.wrap_future(done)

    async def abort(self, name: str) -> int:
        """Abort an adapter's requests between two steps; return how many."""

        def drop() -> int:
            return self.steps.drop(lambda row: row.adapter == name, deleted(name))

        return await asyncio.wrap_future(self.steps.between_steps(drop, is_urgent=True))

    def _evict_idle(self) -> None:
        busy = self.steps.adapters_in_use()
        idle = next((name for name in self.slots if name not in busy), None)
        if idle is None:
            raise Error(
                Kind.UNAVAILABLE,
                "All adapter slots of the engine are in use. Please try again later.",
                code="engine_full",
                retry_after_seconds=1,
            )
        self.take_away(idle)

    def _slot_of(self, adapter: str | None) -> int | None:
        if adapter is None:
            return BASE_SLOT
        slot = self.slots.get(adapter)
        if slot is not None:
            self.slots.move_to_end(adapter)
        return slot


class Engine:
    """What one process serves. An evicted name is refused for the rest of its life."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bases: dict[str, Served] = {}
        self.tombstones: set[str] = set()
        self._arriving: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._bases_lock = asyncio.Lock()

    async def load_base(self, name: str, path: Path) -> None:
        """Load a base and start its steps; does nothing if it is there. Raises Error(INVALID)."""
        async with self._bases_lock:
            if name in self.bases:
                return
            base = await asyncio.to_thread(Base, path, self.settings.precision)
            served = Served(name, base, self.settings, self._publish)
            served.steps.start()
            self.bases[name] = served

    async def load_adapter(self, name: str, base: str, path: Path) -> None:
        """Load an adapter and unlink its files; does nothing (but unlink) if it is there.

        Raises Error(NOT_FOUND) for a base that is not loaded or a name that was evicted,
        Error(INVALID), Error(UNAVAILABLE).
        """
        while name in self._arriving:
            await asyncio.wait([self._arriving[name]])
        task = self._loop.create_task(self._load(name, base, path))
        self._arriving[name] = task
        # Shielded: a client that goes away must not leave plain files or a half-known adapter.
        await asyncio.shield(task)

    async def _load(self, name: str, base: str, path: Path) -> None:
        try:
            await asyncio.to_thread(self._load_in_thread, name, base, path)
        finally:
            del self._arriving[name]

    def _load_in_thread(self, name: str, base: str, path: Path) -> None:
        with read_and_unlink(path, rank_max=self.settings.rank_max) as adapter:
            served = self.bases.get(base)
            if served is None:
                raise Error(
                    Kind.NOT_FOUND,
                    f"The base `{base}` is not loaded in this engine.",
                    param="base",
                    code="base_not_loaded",
                )

            def put() -> None:
                if name in self.tombstones:
                    raise deleted(name)
                served.put(name, adapter)

            served.steps.between_steps(put).result()

    async def evict(self, name: str) -> Evicted:
        """Refuse a name from now on, abort its requests, zero its weights; return when that is done."""
        self.tombstones.add(name)
        # A load under way has the weights in memory; its last act is to overwrite them.
        if name in self._arriving:
            await asyncio.wait([self._arriving[name]])
        done = [await served.evict(name) for served in self.bases.values()]
        return Evicted(any(one.was_loaded for one in done), sum(one.aborted for one in done))

    async def abort(self, name: str) -> int:
        """Abort an adapter's requests; return how many."""
        return sum([await served.abort(name) for served in self.bases.values()])

    def find(self, model: str) -> tuple[Served, str | None]:
        """Return the base that answers for a model, and the adapter's name if it is one.

        Raises Error(NOT_FOUND) with code `adapter_not_loaded`.
        """
        if model in self.bases:
            return self.bases[model], None
        if model not in self.tombstones:
            for served in self.bases.values():
                if model in served.slots:
                    return served, model
        raise not_loaded(model)

    def abort_all(self) -> None:
        """Tell all requests that the engine is stopping. Does not wait."""
        for served in self.bases.values():
            served.steps.abort_all()

    def stop(self) -> None:
        """Abort everything and end the step threads."""
        for served in self.bases.values():
            served.steps.stop()

    def _publish(self, news: list[News]) -> None:
        self._loop.call_soon_threadsafe(_deliver, news)


def deleted(name: str) -> Error:
    """Return what the requests of an evicted adapter get."""
    return Error(
        Kind.NOT_FOUND, f"The model `{name}` was deleted.", param=None, code="model_deleted"
    )


def _deliver(news: list[News]) -> None:
    for receiver, one in news:
        receiver.receive(one)


def of_request(receiver: object) -> Callable[[Row], bool]:
    """Return the test for a row of one request."""
    return lambda row: row.receiver is receiver

"""Bases, adapters and their slots: load, evict, abort. The engine's operations, without HTTP.

All methods run on one event loop. Operations on a model run in its step loop, between two steps.
"""

import asyncio
import gc
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tunewarden.embedded_engine.adapter_files import AdapterWeights, read_and_unlink, unlink
from tunewarden.embedded_engine.lora import BASE_SLOT
from tunewarden.embedded_engine.model import Base, Precision
from tunewarden.embedded_engine.prefill import Limits
from tunewarden.embedded_engine.queued import Queued
from tunewarden.embedded_engine.sequences import Row
from tunewarden.embedded_engine.step_loop import News, StepLoop, not_loaded
from tunewarden.engine_protocol.codes import Code
from tunewarden.errors import Error, Kind
from tunewarden.ids import token

# Loads have a separate thread pool: they never wait for tokenization of other requests.
LOADS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """`adapters_max` is per base. `rank_max` bounds the rank of any adapter."""

    adapters_max: int = 64
    rank_max: int = 64
    limits: Limits = field(default_factory=Limits)
    precision: Precision = Precision.FLOAT32


@dataclass(frozen=True, slots=True)
class Evicted:
    """The result of an eviction: whether the adapter was in a slot, and how many requests were aborted.

    `residue` is the sum of absolute weights read back from the slot after it was overwritten.
    """

    was_loaded: bool
    aborted: int
    residue: float = 0.0


@dataclass(frozen=True, slots=True)
class _Arrival:
    """An adapter being loaded, and the future of its thread."""

    task: asyncio.Task[None]
    work: Future[None]


class Served:
    """One base with its step loop. `slots` is in LRU order and used by the step thread only."""

    def __init__(
        self, name: str, base: Base, settings: Settings, publish: Callable[[list[News]], None]
    ) -> None:
        self.name = name
        self.base = base
        self.slots: OrderedDict[str, int] = OrderedDict()
        self.slots_max = settings.adapters_max
        self._free = list(range(settings.adapters_max, BASE_SLOT, -1))
        # Slots that did not read back as zeros are never reused.
        self._unclean: dict[str, int] = {}
        self.steps = StepLoop(base, limits=settings.limits, slot_of=self._slot_of, publish=publish)

    def put(self, name: str, adapter: AdapterWeights) -> None:
        """Load an adapter into a slot; if none is free, evict an idle adapter. Call it between steps.

        Raises Error(INVALID), Error(UNAVAILABLE) with Code.ENGINE_FULL.
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
        """Abort an adapter's requests; overwrite its weights and prefixes. Call it between steps.

        The slot is read back: it is free again only if it holds zeros.
        """
        aborted = self.steps.drop(lambda one: one.adapter == name, deleted(name))
        self.steps.prefixes.forget(name)
        slot = self.slots.pop(name, None)
        if slot is None:
            slot = self._unclean.pop(name, None)
        if slot is None:
            return Evicted(was_loaded=False, aborted=aborted)
        self.base.erase(slot)
        residue = self.base.residue(slot)
        if residue == 0:
            self._free.append(slot)
        else:
            self._unclean[name] = slot
        return Evicted(was_loaded=True, aborted=aborted, residue=residue)

    async def evict(self, name: str) -> Evicted:
        """Evict an adapter between two steps; return when it is done."""
        done = self.steps.between_steps(lambda: self.take_away(name), is_urgent=True)
        return await asyncio.wrap_future(done)

    async def abort(self, name: str) -> int:
        """Abort an adapter's requests between two steps; return how many."""

        def drop() -> int:
            return self.steps.drop(lambda one: one.adapter == name, deleted(name))

        return await asyncio.wrap_future(self.steps.between_steps(drop, is_urgent=True))

    def _evict_idle(self) -> None:
        busy = self.steps.adapters_in_use()
        idle = next((name for name in self.slots if name not in busy), None)
        if idle is None:
            raise Error(
                Kind.UNAVAILABLE,
                "All adapter slots of the engine are in use. Please try again later.",
                code=Code.ENGINE_FULL,
                retry_after_seconds=1,
            )
        if self.take_away(idle).residue != 0:
            raise Error(Kind.ENGINE_FAILED, "The engine failed to overwrite an adapter slot.")

    def _slot_of(self, adapter: str | None) -> int | None:
        if adapter is None:
            return BASE_SLOT
        slot = self.slots.get(adapter)
        if slot is not None:
            self.slots.move_to_end(adapter)
        return slot


class Engine:
    """The bases and adapters of one process. An evicted name is refused until the process ends."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Identifies this process: it cannot make statements about an earlier one.
        self.incarnation = token(24)
        self.bases: dict[str, Served] = {}
        # Evicted names, each with the result of its first eviction.
        self.tombstones: dict[str, Evicted | None] = {}
        self._arriving: dict[str, _Arrival] = {}
        self._loads = ThreadPoolExecutor(LOADS_AT_ONCE, "loads")
        self._loop = asyncio.get_running_loop()
        self._bases_lock = asyncio.Lock()

    async def load_base(self, name: str, path: Path) -> None:
        """Load a base and start its step loop; no-op if loaded. Raises Error(INVALID)."""
        async with self._bases_lock:
            if name in self.bases:
                return
            base = await asyncio.to_thread(Base, path, self.settings.precision)
            served = Served(name, base, self.settings, self._publish)
            served.steps.start()
            self.bases[name] = served
            # torch, transformers and a base are some 400,000 objects that live as long as the process. Scanning
            # them holds the GIL for a second, and a body of many small values makes the garbage collector do so.
            gc.freeze()

    async def load_adapter(self, name: str, base: str, path: Path) -> None:
        """Load an adapter and unlink its files; only unlinks if it is loaded.

        Raises Error(NOT_FOUND) for a base that is not loaded or a name that was evicted,
        Error(INVALID), Error(UNAVAILABLE).
        """
        while name in self._arriving:
            await asyncio.wait([self._arriving[name].task])
        work = self._loads.submit(self._load_in_thread, name, base, path)
        task = self._loop.create_task(self._load(name, path, work))
        self._arriving[name] = _Arrival(task, work)
        # Shielded: a client's disconnect must not leave plaintext files or a half-loaded adapter.
        await asyncio.shield(task)

    async def _load(self, name: str, path: Path, work: Future[None]) -> None:
        try:
            await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            if not work.cancelled():
                raise
            unlink(path)
            raise deleted(name) from None
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
                    code=Code.BASE_NOT_LOADED,
                )

            def put() -> None:
                if name in self.tombstones:
                    raise deleted(name)
                served.put(name, adapter)

            served.steps.between_steps(put).result()

    async def evict(self, name: str) -> Evicted:
        """Refuse a name from now on, abort its requests, zero its weights; return when it is done.

        A repeated eviction returns the first one's result. If the weights did not read back as zeros (the
        residue is not 0), it has failed: the slot is not reused, and a repeat overwrites it again.
        """
        self.tombstones.setdefault(name, None)
        arrival = self._arriving.get(name)
        if arrival is not None:
            # A load that has not begun never will. A running one has the weights in memory; it
            # overwrites them at its end, between two steps, without waiting for the current one.
            if not arrival.work.cancel():
                for served in self.bases.values():
                    served.steps.between_steps(_nothing, is_urgent=True)
            await asyncio.wait([arrival.task])
        done = [await served.evict(name) for served in self.bases.values()]
        found = Evicted(
            any(one.was_loaded for one in done),
            sum(one.aborted for one in done),
            sum(one.residue for one in done),
        )
        if found.residue != 0:
            return found
        first = self.tombstones[name] or found
        self.tombstones[name] = first
        return first

    async def abort(self, name: str) -> int:
        """Abort an adapter's requests; return how many."""
        return sum([await served.abort(name) for served in self.bases.values()])

    def find(self, model: str) -> tuple[Served, str | None]:
        """Return the base of a model, and the adapter's name if it is one.

        Raises Error(NOT_FOUND) with Code.ADAPTER_NOT_LOADED.
        """
        if model in self.bases:
            return self.bases[model], None
        if model not in self.tombstones:
            for served in self.bases.values():
                if model in served.slots:
                    return served, model
        raise not_loaded(model)

    def abort_all(self) -> None:
        """Abort all requests because the engine is stopping. Does not wait."""
        for served in self.bases.values():
            served.steps.abort_all()

    def stop(self) -> None:
        """Abort everything and end the step threads."""
        for served in self.bases.values():
            served.steps.stop()
            served.base.close()

        self._loads.shutdown(wait=False, cancel_futures=True)

    def _publish(self, news: list[News]) -> None:
        self._loop.call_soon_threadsafe(_deliver, news)


def deleted(name: str) -> Error:
    """Return the error for requests of an evicted adapter."""
    return Error(
        Kind.NOT_FOUND, f"The model `{name}` was deleted.", param=None, code=Code.MODEL_DELETED
    )


def _nothing() -> None:
    return


def _deliver(news: list[News]) -> None:
    for receiver, one in news:
        receiver.receive(one)


def of_request(receiver: object) -> Callable[[Row | Queued], bool]:
    """Return a predicate for what belongs to one request."""
    return lambda one: one.receiver is receiver

"""The adapters in one vLLM: loaded, used, evicted.

vLLM's own unload removes a name from a table: requests that run go on, and the weights stay where they are. Here a name is
refused where every request enters vLLM's scheduler, what runs is aborted, and the workers overwrite and read back.

Every adapter counts against `slots`, the size of vLLM's host cache. If vLLM had to drop one by itself, it would read it
again from its files, which are gone, and end.

Nothing of an adapter is used without a lease (`leases.py`): that is checked where a sequence enters the scheduler, and
before each piece of a response leaves.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakValueDictionary

from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import EvictedAdapter
from tunewarden_vllm import refusals
from tunewarden_vllm.exchange import CURRENT, Exchange
from tunewarden_vllm.leases import Lease
from tunewarden_vllm.refusals import Refused
from tunewarden_vllm.surface import CoreRequest, EngineClient, LoraRequest, ServingModels

# How long an eviction waits for a reader that is slow to take what was written before.
QUIET_SECONDS = 0.25

logger = logging.getLogger(__name__)

# Makes vLLM's request for an adapter: its name, number, directory.
NewRequest = Callable[[str, int, str], LoraRequest]


@dataclass(slots=True, eq=False)
class Adapter:
    """One adapter, pushed for a `lease`. `number` is vLLM's id of it, used once; `exchanges` run on it.

    `arriving` sequences are on their way to the scheduler: an abort sent now could overtake them. `arrived` is set while
    there are none.
    """

    name: str
    base: str
    number: int
    lease: Lease
    exchanges: set[Exchange] = field(default_factory=set)
    arriving: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class Adapters:
    """All adapters of one vLLM. For its event loop."""

    def __init__(
        self,
        engine: EngineClient,
        models: ServingModels,
        new_request: NewRequest,
        *,
        slots: int,
    ) -> None:
        self.slots = slots
        # Evicted names, each with the result of its eviction; None until that succeeded.
        self.tombstones: dict[str, EvictedAdapter | None] = {}
        self._engine = engine
        self._models = models
        self._new_request = new_request
        self._by_name: OrderedDict[str, Adapter] = OrderedDict()  # in LRU order
        self._by_number: dict[int, Adapter] = {}
        # Not usable, and not known to be overwritten.
        self._unclean: dict[str, Adapter] = {}
        self._loading = 0
        # One load or eviction of a name at a time.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._add_to_core = engine.engine_core.add_request_async
        # Every request passes here, just before it is sent to the scheduler: from where it runs, and can be aborted.
        engine.engine_core.add_request_async = self._add

    def names(self, base: str) -> list[str]:
        """Return the names of the adapters on a base, sorted."""
        return sorted(one.name for one in self._by_name.values() if one.base == base)

    def has(self, name: str) -> bool:
        """Return whether an adapter is loaded. Raises Refused if its name was evicted."""
        if name in self.tombstones:
            raise refusals.deleted(name)
        return name in self._by_name

    async def load(self, name: str, base: str, directory: str, lease: Lease) -> None:
        """Load an adapter from its directory, which may be erased afterwards; no-op if it is loaded.

        `lease` is the one for which it was pushed. Raises Refused.
        """
        async with self._turn(name):
            if self.has(name):
                return
            if not lease.holds():
                raise refusals.no_lease()
            await self._make_room()
            self._loading += 1
            try:
                await self._load(name, base, directory, lease)
            finally:
                self._loading -= 1
            # Evicted or dropped while it was loading: who did that waits for this one.
            if name in self.tombstones or lease.has_ended:
                why = refusals.deleted(name) if name in self.tombstones else refusals.no_lease()
                await self._forget(name, why)
                raise why

    async def evict(self, name: str) -> EvictedAdapter:
        """Refuse a name from now on, abort its requests, overwrite its weights; return when it is done.

        A repeated eviction returns the first one's result. If the weights did not read back as zeros it has failed, and a
        repeat overwrites them again.
        """
        self.tombstones.setdefault(name, None)
        async with self._turn(name):
            first = self.tombstones[name]
            if first is None:
                first = await self._forget(name, refusals.deleted(name))
                self.tombstones[name] = None if first.residue else first
            return first

    async def drop(self, lease: Lease) -> bool:
        """Take the adapters of a lease that has ended out of use and overwrite them; return whether all read back as zeros.

        They may be loaded again, for another lease.
        """
        # One that is loading may be of this lease: its turn is waited for.
        names = {*self._of(lease), *self._turns}
        try:
            return not sum(await asyncio.gather(*(self._drop(name, lease) for name in names)))
        except Exception:
            # vLLM's workers report every kind of failure as one class.
            logger.exception("vLLM could not overwrite its adapters")
            return False

    def _of(self, lease: Lease) -> list[str]:
        found = [*self._by_name.values(), *self._unclean.values()]
        return [adapter.name for adapter in found if adapter.lease is lease]

    async def _drop(self, name: str, lease: Lease) -> float:
        async with self._turn(name):
            if name not in self._of(lease):
                return 0.0
            return (await self._forget(name, refusals.no_lease())).residue

    async def abort(self, name: str) -> int:
        """Abort an adapter's requests; return how many sequences."""
        adapter = self._by_name.get(name)
        return 0 if adapter is None else await self._abort(adapter, refusals.deleted(name))

    async def _load(self, name: str, base: str, directory: str, lease: Lease) -> None:
        number = self._models.lora_id_counter.inc(1)
        request = self._new_request(name, number, directory)
        adapter = self._unclean[name] = Adapter(name, base, number, lease)
        adapter.arrived.set()
        try:
            await self._engine.add_lora(request)
            await self._engine.collective_rpc("tunewarden_own", args=(number,))
        except Exception as error:
            # vLLM's workers report every kind of failure as one class.
            logger.exception("vLLM could not load an adapter")
            await self._forget(name, refusals.not_loaded(name))
            reason = str(error).replace(directory, "its directory")
            raise refusals.invalid(f"vLLM cannot load the adapter: {reason}") from error
        self._by_name[name] = self._by_number[number] = self._unclean.pop(name)
        self._models.lora_requests[name] = request

    async def _make_room(self) -> None:
        """Evict the adapter that was not used for longest. Raises Refused if each is in use."""
        while len(self._by_name) + len(self._unclean) + self._loading >= self.slots:
            idle = next(
                (a for a in self._by_name.values() if not a.exchanges and not a.arriving), None
            )
            if idle is None:
                raise Refused(
                    503,
                    f"All {self.slots} adapter slots of this vLLM are in use (--max-cpu-loras). Try again shortly.",
                    Code.ENGINE_FULL,
                )
            if (await self._forget(idle.name, refusals.not_loaded(idle.name))).residue:
                raise Refused(500, "vLLM failed to overwrite an adapter.", Code.ENGINE_FAILED)

    async def _forget(self, name: str, why: Refused) -> EvictedAdapter:
        """Take an adapter out of use, overwrite it, and say what was seen."""
        adapter = self._by_name.pop(name, None) or self._unclean.get(name)
        if adapter is None:
            return EvictedAdapter(name, was_loaded=False, aborted=0, residue=0.0)
        self._unclean[name] = adapter
        self._models.lora_requests.pop(name, None)
        self._by_number.pop(adapter.number, None)
        aborted = await self._abort(adapter, why)
        seen = await self._engine.collective_rpc("tunewarden_evict", args=(adapter.number,))
        residue = float(sum(one["residue"] for one in seen))
        if residue == 0:
            del self._unclean[name]
        was_loaded = any(one["was_loaded"] for one in seen)
        return EvictedAdapter(name, was_loaded, aborted, residue)

    async def _abort(self, adapter: Adapter, why: Refused) -> int:
        exchanges = list(adapter.exchanges)
        for exchange in exchanges:
            exchange.refuse(why)
        await adapter.arrived.wait()
        states = self._engine.output_processor.request_states
        running = [
            one for one, state in states.items() if _number(state.lora_request) == adapter.number
        ]
        await self._engine.abort(running, internal=True)
        await asyncio.gather(*(one.is_quiet(within_seconds=QUIET_SECONDS) for one in exchanges))
        return len(running)

    async def _add(self, request: CoreRequest) -> None:
        lora = request.lora_request
        if lora is None:
            await self._add_to_core(request)
            return
        exchange, adapter = CURRENT.get(), self._by_number.get(lora.lora_int_id)
        is_usable = adapter is not None and adapter.lease.holds()
        if adapter is None or not is_usable or exchange is None or exchange.has_ended:
            # It was evicted after the request's name was looked up, or nobody waits for the response.
            self._engine.output_processor.abort_requests([request.request_id], internal=True)
            refused = self._why_not(lora.lora_name, adapter)
            if exchange is not None:
                exchange.refuse(refused)
            raise refused
        exchange.may_go_on = adapter.lease.holds
        adapter.exchanges.add(exchange)
        exchange.on_end = partial(adapter.exchanges.discard, exchange)
        self._by_name.move_to_end(adapter.name)
        adapter.arriving += 1
        adapter.arrived.clear()
        try:
            await self._add_to_core(request)
        finally:
            adapter.arriving -= 1
            if not adapter.arriving:
                adapter.arrived.set()

    def _why_not(self, name: str, adapter: Adapter | None) -> Refused:
        if name in self.tombstones:
            return refusals.deleted(name)
        if adapter is not None and not adapter.lease.holds():
            return refusals.no_lease()
        return refusals.not_loaded(name)

    def _turn(self, name: str) -> asyncio.Lock:
        lock = self._turns.get(name)
        if lock is None:
            lock = self._turns[name] = asyncio.Lock()
        return lock


def _number(lora: LoraRequest | None) -> int:
    return 0 if lora is None else lora.lora_int_id

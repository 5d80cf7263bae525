"""Whether one worker takes requests, as `/readyz` says."""

import asyncio
import math
from dataclasses import dataclass, field

from tunewarden.engines.adapter_states import AdapterStates

# How old an answer of the engine's may be for a probe, which needs no key.
LOOK_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class Readiness:
    """`is_draining` is set when the worker begins to drain."""

    is_draining: bool = False
    _are_loaded: bool = False
    _looked_at: float = -math.inf
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def are_bases_loaded(self, states: AdapterStates) -> bool:
        """Return whether the embedded engine has all local bases. However many ask, one thread looks, once a second."""
        now = asyncio.get_running_loop().time
        async with self._looking:
            if now() - self._looked_at >= LOOK_AGAIN_SECONDS:
                self._are_loaded = await asyncio.to_thread(states.are_bases_loaded)
                self._looked_at = now()
            return self._are_loaded

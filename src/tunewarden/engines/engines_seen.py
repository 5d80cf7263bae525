"""Whether engines answer, for people who look: asked again only after a while, however often a page is opened."""

from dataclasses import dataclass, field
from threading import Lock

from tunewarden.clock import Clock
from tunewarden.engines.adapter_states import EMBEDDED, LOOK_SECONDS, AdapterState, AdapterStates
from tunewarden.errors import Error

SEEN_SECONDS = 15.0


@dataclass(slots=True)
class EnginesSeen:
    """What one worker saw last. It says nothing of models: engines have those of every organization."""

    _lock: Lock = field(default_factory=Lock)
    _at: float | None = None
    _answering: dict[str, bool] = field(default_factory=dict)

    def look(self, states: AdapterStates, clock: Clock) -> dict[str, bool]:
        """Return by BASE/REPLICA whether it answers, and of the embedded engine by BASE/embedded. Blocks as a look does."""
        with self._lock:  # those who wait get the same look
            if self._at is None or clock.monotonic() - self._at >= SEEN_SECONDS:
                self._answering = dict.fromkeys(_embedded(states), True) | _replicas(states)
                self._at = clock.monotonic()
            return self._answering


def _replicas(states: AdapterStates) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for one in states.counts():
        name = f"{one.base}/{one.replica}"
        found[name] = found.get(name, True) and one.state is not AdapterState.UNREACHABLE
    return found


def _embedded(states: AdapterStates) -> list[str]:
    try:
        return [f"{base}/{EMBEDDED}" for base in states.engine.bases(within_seconds=LOOK_SECONDS)]
    except (OSError, ValueError, Error):
        return []

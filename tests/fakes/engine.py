"""An engine in this process, as deletion sees it: it can forget, fail, hang and start anew."""

from collections.abc import Callable

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.serving.engine import Evicted, Eviction


class FakeEngine:
    """An `Evicting`. `failures` counts the calls that it refuses; a hanging one is started anew."""

    def __init__(self, clock: Clock, name: str = "fake") -> None:
        self._clock = clock
        self.name = name
        self.loaded: set[str] = set()
        self.refused: set[str] = set()
        self.calls: list[str] = []
        self.failures = 0
        self.hangs = False
        self.on_evict: Callable[[str], None] = lambda _: None

    def load(self, internal_id: str) -> bool:
        """Take a model in; False for a name that it was told to forget."""
        if internal_id in self.refused:
            return False
        self.loaded.add(internal_id)
        return True

    def restart(self) -> None:
        """Start anew: it holds nothing and remembers nothing."""
        self.loaded.clear()
        self.refused.clear()
        self.hangs = False

    def evict(self, internal_id: str, *, within_seconds: float) -> Evicted:
        self.calls.append(internal_id)
        self.on_evict(internal_id)
        if self.failures:
            self.failures -= 1
            raise Error(Kind.UNAVAILABLE, "The engine has not let go of the model yet.")
        if self.hangs:
            self._clock.sleep(within_seconds)
            self.restart()
            return Evicted(self.name, Eviction.RESTARTED, aborted=0, zeroed=False)
        self.refused.add(internal_id)
        aborted = int(internal_id in self.loaded)
        self.loaded.discard(internal_id)
        return Evicted(self.name, Eviction.EVICTED, aborted=aborted, zeroed=True)

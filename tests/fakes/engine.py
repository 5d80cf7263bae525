"""An engine in this process, as deletion sees it: it can forget, fail, hang and start anew."""

from collections.abc import Callable
from typing import ClassVar

from tunewarden.clock import Clock
from tunewarden.engines.port import EngineControl, Evicted, Eviction
from tunewarden.errors import Error, Kind


class FakeEngine(EngineControl):
    """An `EngineControl`. `failures` counts the calls that it refuses; a hanging one is started anew."""

    # The truth, for judging receipts: what was overwritten and read back, and what an engine that ended had.
    zeroed: ClassVar[set[str]] = set()
    lost: ClassVar[set[str]] = set()
    # What was asked of an engine that did not answer and was ended: nobody knows whether it had it.
    hung: ClassVar[set[str]] = set()

    @classmethod
    def forget(cls) -> None:
        """Begin anew: models of another world may have the same names, for a stage is played many times."""
        for known in (cls.zeroed, cls.lost, cls.hung):
            known.clear()

    def __init__(self, clock: Clock, name: str = "fake") -> None:
        self._clock = clock
        self.name = name
        self.loaded: set[str] = set()
        self._bases: set[str] = set()
        self.refused: set[str] = set()
        self.calls: list[str] = []
        self.failures = 0
        self.hangs = False
        # Overwriting fails: what is read back is not zero.
        self.is_dirty = False
        self._starts = 1
        self.on_evict: Callable[[str], None] = lambda _: None

    @property
    def incarnation(self) -> str:
        """Return what names this start of it."""
        return f"{self.name}-{self._starts}"

    def load(self, internal_id: str) -> bool:
        """Take a model in; False for a name that it was told to forget."""
        if internal_id in self.refused:
            return False
        self.loaded.add(internal_id)
        return True

    def restart(self) -> None:
        """Start anew: it holds nothing and remembers nothing."""
        self.lost.update(self.loaded)
        self.loaded.clear()
        self.refused.clear()
        self._bases.clear()
        self.hangs = self.is_dirty = False
        self._starts += 1

    def bases(self, *, within_seconds: float = 1.0) -> set[str]:
        return set(self._bases)

    def load_base(self, name: str, path: str) -> None:
        self._bases.add(name)

    def models(self) -> list[str]:
        return sorted(self.loaded)

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        self.calls.append(internal_id)
        self.on_evict(internal_id)
        if self.failures:
            self.failures -= 1
            raise Error(Kind.UNAVAILABLE, "The engine has not evicted the model yet.")
        if self.hangs:
            self._clock.sleep(within_seconds)
            self.hung.add(internal_id)
            self.restart()
            return Evicted(self.name, Eviction.RESTARTED, aborted=0)
        self.refused.add(internal_id)
        if internal_id not in self.loaded:
            has_ended = loaded_by not in {None, self.incarnation}
            how = Eviction.RESTARTED if has_ended else Eviction.NOT_LOADED
            return Evicted(self.name, how, aborted=0)
        if self.is_dirty:
            self.restart()
            return Evicted(self.name, Eviction.RESTARTED, aborted=0)
        self.loaded.discard(internal_id)
        self.zeroed.add(internal_id)
        return Evicted(self.name, Eviction.ZEROED, aborted=1)

"""Which engines may have a model, and which models they have (D5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunewarden.db.database import Database
from tunewarden.engines.port import EngineControl, Evicting, RemoteControl
from tunewarden.registry import bases, models
from tunewarden.registry.bases import Base


@dataclass(frozen=True, slots=True)
class Holders:
    """The engine of this server, and those that adapters are pushed to."""

    database: Database
    engine: EngineControl
    remote_control: Callable[[Base], RemoteControl]

    def of(self, n: int) -> Sequence[Evicting]:
        """Return the engines that may have model `n`: those of its base, which never changes."""
        base = bases.find(self.database, models.by_n(self.database, n).base)
        assert base is not None, "a model's base is a foreign key"
        return (self.remote_control(base),) if base.is_pushed_to else (self.engine,)

    def models(self) -> list[str]:
        """Return the internal ids of the models in all engines. Raises Error(UNAVAILABLE)."""
        remote = [self.remote_control(base) for base in bases.pushed_to(self.database)]
        return [name for engine in (self.engine, *remote) for name in engine.models()]

"""Which engines may have a model, and which models they have (D5)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tunewarden.db.database import Database
from tunewarden.engines.port import EngineControl, Evicted, Evicting, RemoteControl
from tunewarden.registry import bases, models, replicas
from tunewarden.registry.bases import Base
from tunewarden.registry.replicas import Replica

# By base, replica, and the replica's name in receipts.
NewControl = Callable[[Base, Replica, str], RemoteControl]


@dataclass(frozen=True, slots=True)
class ReplicaOfModel(Evicting):
    """A replica that may have model `n`: it has its own record of which process loaded it."""

    database: Database
    control: Evicting
    replica_n: int
    n: int

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        """Make the replica evict the model; `loaded_by` is of the embedded engine, so it is not used."""
        del loaded_by
        noted = replicas.loaded_by(self.database, self.replica_n, self.n)
        return self.control.evict(internal_id, loaded_by=noted, within_seconds=within_seconds)


@dataclass(frozen=True, slots=True)
class Holders:
    """The engine of this server, and the replicas that adapters are pushed to."""

    database: Database
    engine: EngineControl
    remote_control: NewControl

    def of(self, n: int) -> Sequence[Evicting]:
        """Return the engines that may have model `n`: those of its base, which never changes.

        Called after D4, so that it finds each replica to which a worker could still have pushed the model.
        """
        base = bases.find(self.database, models.by_n(self.database, n).base)
        assert base is not None, "a model's base is a foreign key"
        if not base.is_pushed_to:
            return (self.engine,)
        return [
            ReplicaOfModel(self.database, control, replica.n, n)
            for replica, control in self._replicas_of(base)
        ]

    def models(self) -> list[str]:
        """Return the internal ids of the models in all engines. Raises Error(UNAVAILABLE)."""
        remote = [
            control
            for base in bases.list_all(self.database)
            if base.is_pushed_to
            for _, control in self._replicas_of(base)
        ]
        pushed = [name for control in remote for name in control.models()]
        return self.engine.models() + pushed

    def _replicas_of(self, base: Base) -> Iterator[tuple[Replica, RemoteControl]]:
        """Yield the replicas of a base, those that are leaving too."""
        found = replicas.of(self.database, base.name)
        for replica in found:
            label = base.name if len(found) == 1 else f"{base.name}/{replica.name}"
            yield replica, self.remote_control(base, replica, label)

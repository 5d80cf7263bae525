"""Which engines have a model, as the engines say now, and how many models each replica has."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.db.database import Database
from tunewarden.engines.parallel import in_parallel
from tunewarden.engines.port import EngineControl, RemoteControl, Residents
from tunewarden.errors import Error
from tunewarden.registry import bases, replicas
from tunewarden.registry.bases import Base
from tunewarden.registry.models import Model
from tunewarden.registry.replicas import Replica

EMBEDDED = "embedded"
LOOK_SECONDS = 3.0


class AdapterState(StrEnum):
    """The state of a model in one engine."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"  # the last load, since which none was tried
    NOT_LOADED = "not_loaded"  # it is loaded on first use
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class EngineOfModel:
    """A model's state in one engine: `embedded`, or BASE/REPLICA. `reason` of `failed`."""

    engine: str
    state: AdapterState
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterCount:
    """How many models of a base have a state in a replica. A replica that does not answer counts as one `unreachable`."""

    base: str
    replica: str
    state: AdapterState
    count: int


@dataclass(frozen=True, slots=True)
class AdapterStates:
    """Asks the engines. Blocks for as long as the slowest one takes to answer."""

    database: Database
    engine: EngineControl
    remote_control: Callable[[Base, Replica, str], RemoteControl]

    def are_bases_loaded(self) -> bool:
        """Return whether the embedded engine has every local base; also if there is none."""
        try:
            local = {base.name for base in bases.local(self.database)}
            return not local or local <= self.engine.bases(within_seconds=LOOK_SECONDS)
        except (OSError, ValueError, Error):
            return False

    def of(self, model: Model) -> list[EngineOfModel]:
        """Return a model's state in each engine of its base."""
        return self.of_many([model])[model.n]

    def of_many(self, models: Sequence[Model]) -> dict[int, list[EngineOfModel]]:
        """Return the states of models in each engine of their bases, by their numbers. Each engine is asked once."""
        found: dict[int, list[EngineOfModel]] = {one.n: [] for one in models}
        for name in {one.base: None for one in models}:
            of_base = [one for one in models if one.base == name]
            for states in self._of_base(name, of_base):
                for one, state in zip(of_base, states, strict=True):
                    found[one.n].append(state)
        return found

    def counts(self) -> list[AdapterCount]:
        """Return how many models each replica has, by state, for metrics. Of the embedded engine: its own metrics."""
        by_name = {base.name: base for base in bases.list_all(self.database)}
        pushed = [one for one in replicas.list_all(self.database) if one.is_pushed_to]
        found = in_parallel(lambda one: self._counts_of(by_name[one.base], one), pushed)
        return [count for of_one in found for count in of_one]

    def _of_base(self, name: str, models: Sequence[Model]) -> list[list[EngineOfModel]]:
        base = bases.find(self.database, name)
        assert base is not None, "a model's base is a foreign key"
        if not base.is_pushed_to:
            return [self._in_embedded(models)]
        return in_parallel(
            lambda replica: self._in_replica(base, replica, models),
            replicas.of(self.database, name),
        )

    def _in_embedded(self, models: Sequence[Model]) -> list[EngineOfModel]:
        try:
            self.engine.bases(within_seconds=LOOK_SECONDS)
            loaded = self.engine.models()
        except (OSError, ValueError, Error):
            return [EngineOfModel(EMBEDDED, AdapterState.UNREACHABLE)] * len(models)
        return [
            EngineOfModel(
                EMBEDDED,
                AdapterState.READY if one.internal_id in loaded else AdapterState.NOT_LOADED,
            )
            for one in models
        ]

    def _in_replica(
        self, base: Base, replica: Replica, models: Sequence[Model]
    ) -> list[EngineOfModel]:
        label = f"{base.name}/{replica.name}"
        try:
            has = self.remote_control(base, replica, label).residents(within_seconds=LOOK_SECONDS)
        except Error:
            return [EngineOfModel(label, AdapterState.UNREACHABLE)] * len(models)
        return [self._as_resident(replica, label, has, one) for one in models]

    def _as_resident(
        self, replica: Replica, label: str, has: Residents, model: Model
    ) -> EngineOfModel:
        if model.internal_id in has.ready:
            return EngineOfModel(label, AdapterState.READY)
        if model.internal_id in has.loading:
            return EngineOfModel(label, AdapterState.LOADING)
        failure = replicas.failure_of(self.database, replica.n, model.n)
        state = AdapterState.NOT_LOADED if failure is None else AdapterState.FAILED
        return EngineOfModel(label, state, failure)

    def _counts_of(self, base: Base, replica: Replica) -> list[AdapterCount]:
        label = f"{base.name}/{replica.name}"
        counts: Counter[AdapterState] = Counter()
        try:
            has = self.remote_control(base, replica, label).residents(within_seconds=LOOK_SECONDS)
        except Error:
            counts[AdapterState.UNREACHABLE] = 1
        else:
            counts[AdapterState.READY] = len(has.ready)
            counts[AdapterState.LOADING] = len(has.loading)
        counts[AdapterState.FAILED] = replicas.count_failures(self.database, replica.n)
        return [AdapterCount(base.name, replica.name, state, n) for state, n in counts.items()]

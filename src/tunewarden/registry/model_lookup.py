"""Resolves a model name to its inference target, or an alias to its targets; checks whether the caller may use one now."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from tunewarden.db.database import Database, Tx
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller
from tunewarden.registry import alias_rows, bases, models, replicas
from tunewarden.registry.artifacts import State
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.replicas import Replica

_MEANING = f"SELECT a.n, a.internal_id, m.base {models.FROM} WHERE a.id = :id"
_STATE = (
    f"SELECT a.state {models.FROM} WHERE a.n = :n AND a.organization_id = :organization"
    f" AND {models.SEEN_BY}"
)


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a request: a base, or the fine-tuned model number `n` on it.

    Names are never reused, and bases never change (I7, I8). `replicas` are those of a remote base that did not leave
    when this was read: cacheable until something is committed.
    """

    public_id: str
    base: Base
    n: int | None
    engine_model: str
    replicas: tuple[Replica, ...] = ()


def meaning(database: Database, name: str) -> Target | None:
    """Resolve a name, for any caller and in any state; None if it is unknown."""
    if not name.startswith("ft:"):  # no base name starts like this
        base = bases.find(database, name)
        return (
            Target(name, base, None, base.engine_model, _serving(database, base)) if base else None
        )
    row = database.peek(_MEANING, id=name)
    if row is None:
        return None
    base = bases.find(database, row[2])
    assert base is not None, "a model's base is a foreign key"
    return Target(name, base, row[0], row[1], _serving(database, base))


@dataclass(frozen=True, slots=True)
class Split:
    """The ids of the models that an alias means, each with the sum of the weights up to it."""

    targets: tuple[tuple[int, str], ...]

    def pick(self, draw: Callable[[], int]) -> str:
        """Return one model by the weights; equal draws pick the same. `draw` is called if there is a choice."""
        if len(self.targets) == 1:
            return self.targets[0][1]
        at = draw() % self.targets[-1][0]
        return next(target for end, target in self.targets if at < end)


def split_of(database: Database, key_id: str, name: str) -> Split | None:
    """Resolve a name as an alias of the organization of an API key, which need not be authenticated; None if it is none."""
    organization_id = keys.organization_of(database, key_id)
    if organization_id is None or not alias_rows.exists(database, organization_id, name):
        return None
    with database.read() as tx:
        alias = alias_rows.find(tx, organization_id, name)
    if alias is None:
        return None
    ends = accumulate(one.weight for one in alias.current.targets)
    names = [one.model_id for one in alias.current.targets]
    return Split(tuple(zip(ends, names, strict=True)))


def may_be_used(tx: Tx, caller: Caller, n: int) -> bool:
    """Return whether model `n` is active and visible to the caller: one read by primary key (I9)."""
    row = tx.row(_STATE, n=n, organization=caller.organization_id, project=caller.project_id)
    return row is not None and row[0] == State.ACTIVE


def _serving(database: Database, base: Base) -> tuple[Replica, ...]:
    if base.kind is BaseKind.LOCAL:
        return ()
    found = replicas.of(database, base.name)
    return tuple(replica for replica in found if replica.leaving_at is None)

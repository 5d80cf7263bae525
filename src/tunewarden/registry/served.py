"""What an inference request may be served on: what a name means, and whether it may be used now."""

from dataclasses import dataclass

from tunewarden.db.database import Database, Tx
from tunewarden.identity.policy import Caller
from tunewarden.registry import bases, models
from tunewarden.registry.artifacts import State
from tunewarden.registry.bases import Base

_MEANING = f"SELECT a.n, a.internal_id, m.base {models.FROM} WHERE a.id = :id"
_STATE = (
    f"SELECT a.state {models.FROM} WHERE a.n = :n AND a.organization_id = :organization"
    f" AND {models.SEEN_BY}"
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for: a base, or the fine-tuned model number `n` on it.

    All of it holds for ever: names are never used twice, and bases never change (I7, I8).
    """

    public_id: str
    base: Base
    n: int | None
    engine_model: str


def meaning(database: Database, name: str) -> Target | None:
    """Return what a name means, whoever asks and whatever its state; None if it means nothing."""
    if not name.startswith("ft:"):  # no base is called so
        base = bases.find(database, name)
        return Target(name, base, None, base.engine_model) if base else None
    row = database.peek(_MEANING, id=name)
    if row is None:
        return None
    base = bases.find(database, row[2])
    assert base is not None, "a model's base is a foreign key"
    return Target(name, base, row[0], row[1])


def may_be_used(tx: Tx, caller: Caller, n: int) -> bool:
    """Tell whether model `n` is active and the caller's to use: one read by primary key (I9)."""
    row = tx.row(_STATE, n=n, organization=caller.organization_id, project=caller.project_id)
    return row is not None and row[0] == State.ACTIVE

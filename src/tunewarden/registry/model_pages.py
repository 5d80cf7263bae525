"""Pages of models as people look through them: the newest first, only those of a base, a name or a state."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden.db import cursors
from tunewarden.db.database import Database, Tx
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import alias_rows, holds, models, usage
from tunewarden.registry.artifacts import State
from tunewarden.registry.models import Model


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which models a page shows: of this base, with a suffix that begins so, in this state. None: all."""

    base: str | None = None
    suffix: str | None = None
    state: State | None = None


ALL = Chosen()
# About what can be looked at in 20 ms.
LOOKED_AT_MAX = 20_000
_LISTED = (
    "a.organization_id = :organization AND a.kind = 'model' AND a.state IN ('active', 'archived')"
)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model with what there is to know of it before it is changed. `last_used_at` in microseconds."""

    model: Model
    last_used_at: int | None
    requests_last_day: int
    holds: Sequence[str]
    aliases: Sequence[str]


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Models; `looked_to` is the id of the last one that was looked at, if there are older ones that were not."""

    models: Sequence[ListedModel]
    looked_to: str | None


def page(
    database: Database, caller: Caller, chosen: Chosen, *, after: str | None, limit: int
) -> ModelPage:
    """Return up to `limit` models that the caller can see, newest first, after the model with the id `after`.

    Looks through LOOKED_AT_MAX at most, so that a choice that few meet takes no longer among a million.
    Raises Error(FORBIDDEN), Error(INVALID) for an unknown cursor.
    """
    authorize(caller, Action.READ_MODELS)
    start = models.position(database, caller, after) if after is not None else cursors.AFTER_ALL
    suffix = chosen.suffix or ""
    with database.read() as tx:
        last = None if chosen == ALL else _last_looked_at(tx, caller.organization_id, start)
        rows = tx.rows(
            f"SELECT {models.COLUMNS} {models.FROM} WHERE {_LISTED} AND a.n < :start AND a.n >= :last"
            " AND m.base = COALESCE(:base, m.base) AND a.state = COALESCE(:state, a.state)"
            " AND SUBSTR(m.suffix, 1, :length) = :suffix"
            f" AND {models.SEEN_BY} ORDER BY a.n DESC LIMIT :limit",
            organization=caller.organization_id,
            project=caller.project_id,
            start=start,
            last=cursors.BEFORE_ALL if last is None else last[0],
            base=chosen.base,
            state=None if chosen.state is None else chosen.state.value,
            suffix=suffix,
            length=len(suffix),
            limit=limit,
        )
        found = [_listed(tx, caller, models.from_row(row)) for row in rows]
    is_all = last is None or len(found) == limit
    return ModelPage(found, None if is_all or last is None else last[1])


def _last_looked_at(tx: Tx, organization_id: str, start: int) -> tuple[int, str] | None:
    """Return number and id of the last model that one page looks at; None if there are fewer."""
    row = tx.row(
        f"SELECT a.n, a.id FROM artifacts a WHERE {_LISTED} AND a.n < :start ORDER BY a.n DESC LIMIT 1 OFFSET :most",
        organization=organization_id,
        start=start,
        most=LOOKED_AT_MAX - 1,
    )
    return None if row is None else (int(row[0]), str(row[1]))


def one(database: Database, caller: Caller, model: Model) -> ListedModel:
    """Return the same of one model, which the caller can see."""
    with database.read() as tx:
        return _listed(tx, caller, model)


def _listed(tx: Tx, caller: Caller, model: Model) -> ListedModel:
    used = usage.of_model(tx, caller.organization_id, model.id)
    return ListedModel(
        model,
        used.last_used_at,
        used.requests_last_day,
        holds.in_force_on(tx, model.n),
        [name for _, name in alias_rows.that_point_to(tx, model.n)],
    )

"""Pages of models as people look through them: the newest first, only those of a base, a name or a state."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewarden.db import cursors
from tunewarden.db.database import Database, Tx
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import alias_rows, artifacts, holds, models, usage
from tunewarden.registry.artifacts import State
from tunewarden.registry.models import Model


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which models a page shows: of this base, with a suffix that begins so, in this state. None: all."""

    base: str | None = None
    suffix: str | None = None
    state: State | None = None


# What no more models have is found by its index and sorted; what more have is met on the way.
FEW_MAX = 2_000
# About what can be looked at in 10 ms.
LOOKED_AT_MAX = 10_000
# Beyond every name that begins so: it comes after all characters that a suffix may have.
_LAST = "~"
_NAMED = (
    "m.listed_in = :organization AND m.suffix <> '' AND m.suffix >= :suffix AND m.suffix < :beyond"
)
# What is gone through by its index, and the same with what is looked up for each: CROSS JOIN keeps their order.
_BY_ROW = "FROM artifacts a WHERE", "FROM artifacts a CROSS JOIN models m WHERE a.n = m.n AND"
_BY_NAME = "FROM models m WHERE", "FROM models m CROSS JOIN artifacts a WHERE a.n = m.n AND"


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


@dataclass(frozen=True, slots=True)
class _Way:
    """What a page goes through, alone and joined; the condition that an index is for; the column with the order."""

    first: str
    joined: str
    condition: str
    n: str
    is_whole: bool = False


def page(
    database: Database, caller: Caller, chosen: Chosen, *, after: str | None, limit: int
) -> ModelPage:
    """Return up to `limit` models that the caller can see, newest first, after the model with the id `after`.

    What few models have is found by its index. Else it looks through LOOKED_AT_MAX at most, so that a choice that few
    meet takes no longer among a million. Raises Error(FORBIDDEN), Error(INVALID) for an unknown cursor.
    """
    authorize(caller, Action.READ_MODELS)
    start = models.position(database, caller, after) if after is not None else cursors.AFTER_ALL
    suffix = chosen.suffix or ""
    values = {
        "organization": caller.organization_id,
        "project": caller.project_id,
        "start": start,
        "base": chosen.base,
        "suffix": suffix,
        "beyond": suffix + _LAST,
        "length": len(suffix),
    }
    with database.read() as tx:
        way = _way(tx, chosen, values)
        last = None if way.is_whole else _last_looked_at(tx, way, values)
        rows = tx.rows(
            f"SELECT {models.COLUMNS} {way.joined} {way.condition} AND {_in(chosen.state)} AND {way.n} < :start AND {way.n} >= :last"
            " AND m.base = COALESCE(:base, m.base) AND SUBSTR(m.suffix, 1, :length) = :suffix"
            f" AND {models.SEEN_BY} ORDER BY {way.n} DESC LIMIT :limit",
            last=cursors.BEFORE_ALL if last is None else last,
            limit=limit,
            **values,
        )
        found = [_listed(tx, caller, models.from_row(row)) for row in rows]
        is_all = last is None or len(found) == limit
        looked_to = None if is_all or last is None else artifacts.by_n(tx, last)[1].id
    return ModelPage(found, looked_to)


def _way(tx: Tx, chosen: Chosen, values: Mapping[str, Any]) -> _Way:
    """Return the way that passes over most of what was not chosen."""
    ways = list(_ways(chosen))
    for way in ways:
        (count,) = tx.rows(
            f"SELECT COUNT(*) FROM (SELECT 1 {way.first} {way.condition} LIMIT :most) counted",
            most=FEW_MAX + 1,
            **values,
        )
        if count[0] <= FEW_MAX:
            return replace(way, is_whole=True)
    in_order = (way for way in ways if way.condition != _NAMED)
    return next(in_order, _Way(*_BY_ROW, _in(None), "a.n", is_whole=not ways))


def _ways(chosen: Chosen) -> Iterator[_Way]:
    """Yield a way for each thing that is chosen by."""
    if chosen.suffix:
        yield _Way(*_BY_NAME, _NAMED, "m.n")
    if chosen.base is not None:
        yield _Way(*_BY_NAME, "m.listed_in = :organization AND m.base = :base", "m.n")
    if chosen.state is not None:
        yield _Way(*_BY_ROW, _in(chosen.state), "a.n")


def _in(state: State | None) -> str:
    """Return the condition on the state, as the index for it has it."""
    chosen = "IN ('active', 'archived')" if state is None else f"= '{state.value}'"
    return f"a.organization_id = :organization AND a.kind = 'model' AND a.state {chosen}"


def _last_looked_at(tx: Tx, way: _Way, values: Mapping[str, Any]) -> int | None:
    """Return the number of the last model that one page looks at; None if there are fewer."""
    row = tx.row(
        f"SELECT {way.n} {way.first} {way.condition} AND {way.n} < :start ORDER BY {way.n} DESC LIMIT 1 OFFSET :most",
        most=LOOKED_AT_MAX - 1,
        **values,
    )
    return None if row is None else int(row[0])


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

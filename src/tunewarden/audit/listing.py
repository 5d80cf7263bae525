"""Lists of an organization's events, newest first, by any filters: stays fast at millions of events.

Each filter has an index that holds an organization's events of one value in the list's order. A list reads the index
of the filter that matches the fewest events, one range for each of its values, merges them, and checks the other
filters on each row. Without filters it reads all of the organization's.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tunewarden.audit.events import COLUMNS, Event
from tunewarden.db import cursors
from tunewarden.db.database import Database, Tx

# How far matches are counted to find the filter with the fewest.
_COUNTED_MAX = 2_000
_PAGE = 500
_ACTOR = "actor"

# The place of an event in lists: when it happened (microseconds), and its number.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which events: an event matches each filter that has values, by one of them.

    `actor_ids` are of users, service accounts and API keys. Times are in microseconds, both inclusive.
    """

    types: frozenset[str] = frozenset()
    resource_ids: frozenset[str] = frozenset()
    project_ids: frozenset[str] = frozenset()
    actor_ids: frozenset[str] = frozenset()
    user_ids: frozenset[str] = frozenset()
    matches_none: bool = False
    from_at: int = 0
    to_at: int = cursors.AFTER_ALL


@dataclass(frozen=True, slots=True)
class _Range:
    """Events of one value of a filter: an index has them in order."""

    condition: str
    value: str


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of a list to read: between two places, exclusive, from the newest down unless it `ascends`."""

    newer_than: Place = (-1, -1)
    older_than: Place = (cursors.AFTER_ALL, cursors.AFTER_ALL)
    limit: int = _PAGE
    ascends: bool = False


@dataclass(frozen=True, slots=True)
class _Search:
    """What to read: `others` are conditions on each row, with the values of their parameters."""

    organization_id: str
    filters: Filters
    window: _Window
    others: str
    values: dict[str, str]


def page(
    database: Database,
    organization_id: str,
    filters: Filters,
    *,
    after: str | None,
    before: str | None,
    limit: int,
) -> list[Event]:
    """Return up to `limit` events, newest first: those that follow the event `after`, or that precede `before`.

    With both, those between. Raises Error(INVALID) for a cursor that is no event of the organization's.
    """
    with database.read() as tx:
        window = _Window(limit=limit, ascends=before is not None and after is None)
        if after is not None:
            window = replace(window, older_than=_place(tx, organization_id, after, "after"))
        if before is not None:
            window = replace(window, newer_than=_place(tx, organization_id, before, "before"))
        found = _read(tx, organization_id, filters, window)
    return found[::-1] if window.ascends else found


def everything(
    database: Database, organization_id: str, filters: Filters, *, check: Callable[[Tx], object]
) -> Iterator[Event]:
    """Yield all matching events, oldest first, in constant memory; those recorded in the meantime too.

    `check` runs in each transaction that reads: it raises if they may not be read any more.
    """
    window = _Window(ascends=True)
    while True:
        with database.read() as tx:
            check(tx)
            found = _read(tx, organization_id, filters, window)
        yield from found
        if len(found) < window.limit:
            return
        window = replace(window, newer_than=_place_of(found[-1]))


def _place(tx: Tx, organization_id: str, event_id: str, param: str) -> Place:
    row = tx.row(
        "SELECT effective_at, n FROM audit_events WHERE id = :id AND organization_id = :organization",
        id=event_id,
        organization=organization_id,
    )
    if row is None:
        raise cursors.unknown(event_id, param)
    return int(row[0]), int(row[1])


def _read(tx: Tx, organization_id: str, filters: Filters, window: _Window) -> list[Event]:
    if filters.matches_none:
        return []
    of = {name: ranges for name, ranges in _ranges(filters) if ranges} or {"": [_Range("", "")]}
    chosen = next(iter(of))
    if len(of) > 1:
        chosen = min(of, key=lambda name: _matches(tx, organization_id, of[name]))
    # Places first: an index alone gives them, if no other filter is to be checked.
    search = _Search(organization_id, filters, window, *_others(filters, but=chosen))
    read = [_places(tx, search, one) for one in of[chosen]]
    found: dict[Place, None] = {}
    for place in heapq.merge(*read, reverse=not window.ascends):
        if len(found) == window.limit:
            break
        found[place] = None  # one may be in two ranges: of its key and of its user
    return [_event(tx, n) for _, n in found]


def _ranges(filters: Filters) -> Iterator[tuple[str, list[_Range]]]:
    """Yield the ranges that each filter reads, by the filter's name."""
    for column, values in _columns(filters):
        yield column, [_Range(f" AND {column} = :value", one) for one in sorted(values)]
    yield (
        _ACTOR,
        [
            _Range(condition, one)
            for one in sorted(filters.actor_ids)
            for condition in (" AND actor_key_id = :value", " AND actor_user_id = :value")
        ],
    )


def _columns(filters: Filters) -> tuple[tuple[str, frozenset[str]], ...]:
    return (
        ("type", filters.types),
        ("resource_id", filters.resource_ids),
        ("project_id", filters.project_ids),
        ("actor_user_id", filters.user_ids),
    )


def _matches(tx: Tx, organization_id: str, ranges: Sequence[_Range]) -> int:
    """Return how many events ranges have, counted as far as it matters."""
    count = 0
    for one in ranges:
        row = tx.row(
            "SELECT COUNT(*) FROM (SELECT 1 FROM audit_events WHERE organization_id = :organization"
            f"{one.condition} LIMIT :most) AS counted",
            organization=organization_id,
            value=one.value,
            most=_COUNTED_MAX,
        )
        count += int(row[0]) if row else 0
        if count >= _COUNTED_MAX:
            break
    return count


def _places(tx: Tx, search: _Search, of: _Range) -> list[Place]:
    """Return the places of a range's events that match the other filters, in the window's order."""
    window, filters = search.window, search.filters
    order = "ASC" if window.ascends else "DESC"
    rows = tx.rows(
        f"SELECT effective_at, n FROM audit_events WHERE organization_id = :organization{of.condition}"
        " AND effective_at >= :from_at AND effective_at <= :to_at"
        " AND (effective_at, n) > (:newer_at, :newer_n) AND (effective_at, n) < (:older_at, :older_n)"
        f"{search.others} ORDER BY effective_at {order}, n {order} LIMIT :limit",
        organization=search.organization_id,
        value=of.value,
        from_at=max(filters.from_at, window.newer_than[0]),
        to_at=min(filters.to_at, window.older_than[0]),
        newer_at=window.newer_than[0],
        newer_n=window.newer_than[1],
        older_at=window.older_than[0],
        older_n=window.older_than[1],
        limit=window.limit,
        **search.values,
    )
    return [(int(at), int(n)) for at, n in rows]


def _event(tx: Tx, n: int) -> Event:
    row = tx.row(f"SELECT {COLUMNS} FROM audit_events WHERE n = :n", n=n)
    assert row is not None, "read in the same transaction"
    return Event(*row)


def _others(filters: Filters, *, but: str) -> tuple[str, dict[str, str]]:
    """Return the conditions of all filters but one on a row, and their values.

    COALESCE keeps the database from reading another filter's index, which has other events in the way.
    """
    text = ""
    values: dict[str, str] = {}

    def listed(name: str, chosen: frozenset[str]) -> str:
        named = {f"{name}_{at}": one for at, one in enumerate(sorted(chosen))}
        values.update(named)
        return ", ".join(f":{one}" for one in named)

    for column, chosen in _columns(filters):
        if chosen and column != but:
            text += f" AND COALESCE({column}, '') IN ({listed(column, chosen)})"
    if filters.actor_ids and but != _ACTOR:
        ids = listed(_ACTOR, filters.actor_ids)
        text += f" AND (COALESCE(actor_key_id, '') IN ({ids}) OR COALESCE(actor_user_id, '') IN ({ids}))"
    return text, values


def _place_of(event: Event) -> Place:
    return event.effective_at, event.n

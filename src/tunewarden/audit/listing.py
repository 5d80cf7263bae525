"""Lists of an organization's events, newest first, by any filters: stays fast at millions of events.

Each filter has an index that holds an organization's events of one value in the list's order. A list reads the index
of the filter that matches the fewest events, one range for each of its values, merges them, and checks the other
filters on each row. Without filters it reads all of the organization's.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tunewarden.audit.events import COLUMNS, Event
from tunewarden.db import cursors
from tunewarden.db.database import Database, Tx

# How far matches are counted to find the filter with the fewest.
_COUNTED_MAX = 2_000
_PAGE = 500

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


def everything(database: Database, organization_id: str, filters: Filters) -> Iterator[Event]:
    """Yield all matching events, oldest first, in constant memory; those recorded in the meantime too."""
    window = _Window(ascends=True)
    while True:
        with database.read() as tx:
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
    of = [ranges for ranges in _ranges(filters) if ranges] or [[_Range("", "")]]
    chosen = of[0]
    if len(of) > 1:
        chosen = min(of, key=lambda ranges: _matches(tx, organization_id, ranges))
    read = [_read_range(tx, organization_id, one, filters, window) for one in chosen]
    found: dict[int, Event] = {}
    for event in heapq.merge(*read, key=_place_of, reverse=not window.ascends):
        if len(found) == window.limit:
            break
        found[event.n] = event  # one may be in two ranges: of its key and of its user
    return list(found.values())


def _ranges(filters: Filters) -> Iterator[list[_Range]]:
    """Yield the ranges that each filter reads."""
    yield [_Range(" AND type = :value", one) for one in sorted(filters.types)]
    yield [_Range(" AND resource_id = :value", one) for one in sorted(filters.resource_ids)]
    yield [_Range(" AND project_id = :value", one) for one in sorted(filters.project_ids)]
    yield [_Range(" AND actor_user_id = :value", one) for one in sorted(filters.user_ids)]
    yield [
        _Range(condition, one)
        for one in sorted(filters.actor_ids)
        for condition in (" AND actor_key_id = :value", " AND actor_user_id = :value")
    ]


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


def _read_range(
    tx: Tx, organization_id: str, of: _Range, filters: Filters, window: _Window
) -> list[Event]:
    order = "ASC" if window.ascends else "DESC"
    others, values = _others(filters)
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM audit_events WHERE organization_id = :organization{of.condition}"
        " AND effective_at >= :from_at AND effective_at <= :to_at"
        " AND (effective_at, n) > (:newer_at, :newer_n) AND (effective_at, n) < (:older_at, :older_n)"
        f"{others} ORDER BY effective_at {order}, n {order} LIMIT :limit",
        organization=organization_id,
        value=of.value,
        from_at=max(filters.from_at, window.newer_than[0]),
        to_at=min(filters.to_at, window.older_than[0]),
        newer_at=window.newer_than[0],
        newer_n=window.newer_than[1],
        older_at=window.older_than[0],
        older_n=window.older_than[1],
        limit=window.limit,
        **values,
    )
    return [Event(*row) for row in rows]


def _others(filters: Filters) -> tuple[str, dict[str, str]]:
    """Return the conditions of all filters on a row, and their values.

    COALESCE keeps the database from reading another filter's index, which has other events in the way.
    """
    text = ""
    values: dict[str, str] = {}
    for column, chosen in (
        ("type", filters.types),
        ("resource_id", filters.resource_ids),
        ("project_id", filters.project_ids),
        ("actor_user_id", filters.user_ids),
        ("actor", filters.actor_ids),
    ):
        if not chosen:
            continue
        names = {f"{column}_{at}": one for at, one in enumerate(sorted(chosen))}
        values |= names
        listed = ", ".join(f":{name}" for name in names)
        if column == "actor":
            text += f" AND (COALESCE(actor_key_id, '') IN ({listed}) OR COALESCE(actor_user_id, '') IN ({listed}))"
        else:
            text += f" AND COALESCE({column}, '') IN ({listed})"
    return text, values


def _place_of(event: Event) -> Place:
    return event.effective_at, event.n

"""Refused acts, recorded in transactions of their own, because those of the acts were rolled back.

The first 100 of a key in an hour are events. What follows is counted, in memory first, and when the hour is over its
count becomes one event: a client that is refused can fill no disk, and keep no other from writing. # I20
"""

import threading
from collections import Counter
from weakref import WeakKeyDictionary

from tunewarden.audit.events import SERVER, Actor, EventType, record
from tunewarden.clock import Clock, from_micros, iso, to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind

LISTED_MAX = 100
HOUR_MICROS = 3600 * 1_000_000
_PAGE = 100
# By organization and key: what this process has counted and not yet written, for each of its databases.
_Counts = Counter[tuple[str, str]]
_waiting: WeakKeyDictionary[Database, _Counts] = WeakKeyDictionary()
_lock = threading.Lock()


def refuse(
    database: Database,
    event: EventType,
    refused: Error,
    *,
    organization_id: str,
    actor: Actor,
    resource_id: str,
    **details: object,
) -> None:
    """Record a refused act, or count it; not on a full disk. The error is marked, so that nobody records it again."""
    key_id = actor.key_id or ""
    refused.is_recorded = True
    if _listed(database, organization_id, key_id) >= LISTED_MAX:
        with _lock:
            _waiting.setdefault(database, Counter())[organization_id, key_id] += 1
        return
    try:
        with database.write() as tx:
            is_listed = _count(tx, organization_id, key_id)
            if is_listed:
                record(
                    tx,
                    event,
                    organization_id=organization_id,
                    actor=actor,
                    resource_id=resource_id,
                    **details,
                )
    except Error as error:
        if error.kind is not Kind.STORAGE_FULL:
            raise


def flush(database: Database) -> None:
    """Write what this process has counted. Each second in a worker: a crash loses the last second's counts."""
    with _lock:
        counts = _waiting.pop(database, None)
    if not counts:
        return
    try:
        with database.write(survives=False) as tx:
            for (organization_id, key_id), count in counts.items():
                _add(tx, organization_id, key_id, listed=0, counted=count)
    except Error:
        with _lock:
            _waiting.setdefault(database, Counter()).update(counts)
        raise


def close_hours(database: Database, clock: Clock) -> int:
    """Record the counts of hours that are over, as one event for each key; return how many."""
    count = 0
    hour = _hour(to_micros(clock.now()))
    sql = "SELECT 1 FROM audit_refusals WHERE hour_at < :hour LIMIT 1"
    while database.peek(sql, hour=hour):
        with database.write() as tx:
            count += _close(tx, hour)
    return count


def _close(tx: Tx, hour: int) -> int:
    count = 0
    rows = tx.rows(
        "SELECT organization_id, key_id, hour_at, counted FROM audit_refusals WHERE hour_at < :hour"
        " ORDER BY hour_at, organization_id, key_id LIMIT :limit",
        hour=hour,
        limit=_PAGE,
    )
    for organization_id, key_id, hour_at, counted in rows:
        if counted:
            count += 1
            record(
                tx,
                EventType.REFUSALS_COUNTED,
                organization_id=organization_id,
                actor=SERVER,
                resource_id=key_id,
                count=counted,
                since=iso(from_micros(hour_at)),
            )
        tx.run(
            "DELETE FROM audit_refusals WHERE organization_id = :organization AND key_id = :key AND hour_at = :hour",
            organization=organization_id,
            key=key_id,
            hour=hour_at,
        )
    return count


def _listed(database: Database, organization_id: str, key_id: str) -> int:
    """Return how many refused acts of a key are events, in the newest hour that has any."""
    row = database.peek(
        "SELECT listed FROM audit_refusals WHERE organization_id = :organization AND key_id = :key"
        " ORDER BY hour_at DESC LIMIT 1",
        organization=organization_id,
        key=key_id,
    )
    return int(row[0]) if row else 0


def _count(tx: Tx, organization_id: str, key_id: str) -> bool:
    """Count one more in this hour; return whether it is to be an event."""
    row = tx.row(
        "SELECT listed FROM audit_refusals WHERE organization_id = :organization AND key_id = :key"
        " AND hour_at = :hour",
        organization=organization_id,
        key=key_id,
        hour=_hour(tx.now_micros),
    )
    is_listed = row is None or row[0] < LISTED_MAX
    _add(tx, organization_id, key_id, listed=int(is_listed), counted=int(not is_listed))
    return is_listed


def _add(tx: Tx, organization_id: str, key_id: str, *, listed: int, counted: int) -> None:
    tx.run(
        "INSERT INTO audit_refusals VALUES (:organization, :key, :hour, :listed, :counted)"
        " ON CONFLICT (organization_id, key_id, hour_at) DO UPDATE SET"
        " listed = audit_refusals.listed + excluded.listed, counted = audit_refusals.counted + excluded.counted",
        organization=organization_id,
        key=key_id,
        hour=_hour(tx.now_micros),
        listed=listed,
        counted=counted,
    )


def _hour(micros: int) -> int:
    return micros - micros % HOUR_MICROS

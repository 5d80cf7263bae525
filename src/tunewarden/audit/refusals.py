"""Refused acts, recorded in transactions of their own, because those of the acts were rolled back.

The first 100 of a key in an hour are events; what follows is counted in one row, which becomes one event when the
hour is over. So a client cannot fill the disk by being refused. # I20
"""

from tunewarden.audit.events import SERVER, Actor, EventType, record, unless_full
from tunewarden.clock import Clock, from_micros, iso, to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error

LISTED_MAX = 100
HOUR_MICROS = 3600 * 1_000_000
_PAGE = 100


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
    # Those that are counted do not wait for the disk: only a power cut loses a count, and no client gets a slow answer
    # by asking often.
    survives = _count(database, organization_id, key_id) < LISTED_MAX
    with unless_full(), database.write(survives=survives) as tx:
        if _counted(tx, organization_id, key_id) <= LISTED_MAX:
            record(
                tx,
                event,
                organization_id=organization_id,
                actor=actor,
                resource_id=resource_id,
                **details,
            )


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
        "SELECT organization_id, key_id, hour_at, refused FROM audit_refusals WHERE hour_at < :hour"
        " ORDER BY hour_at, organization_id, key_id LIMIT :limit",
        hour=hour,
        limit=_PAGE,
    )
    for organization_id, key_id, hour_at, refused in rows:
        if refused > LISTED_MAX:
            count += 1
            record(
                tx,
                EventType.REFUSALS_COUNTED,
                organization_id=organization_id,
                actor=SERVER,
                resource_id=key_id,
                count=refused - LISTED_MAX,
                since=iso(from_micros(hour_at)),
            )
        tx.run(
            "DELETE FROM audit_refusals WHERE organization_id = :organization AND key_id = :key AND hour_at = :hour",
            organization=organization_id,
            key=key_id,
            hour=hour_at,
        )
    return count


def _count(database: Database, organization_id: str, key_id: str) -> int:
    """Return how many acts of the key were refused in the newest hour that is counted, at most this one."""
    row = database.peek(
        "SELECT refused FROM audit_refusals WHERE organization_id = :organization AND key_id = :key"
        " ORDER BY hour_at DESC LIMIT 1",
        organization=organization_id,
        key=key_id,
    )
    return int(row[0]) if row else 0


def _counted(tx: Tx, organization_id: str, key_id: str) -> int:
    """Count one more in this hour; return how many there are."""
    hour = _hour(tx.now_micros)
    tx.run(
        "INSERT INTO audit_refusals VALUES (:organization, :key, :hour, 1)"
        " ON CONFLICT (organization_id, key_id, hour_at) DO UPDATE SET refused = audit_refusals.refused + 1",
        organization=organization_id,
        key=key_id,
        hour=hour,
    )
    row = tx.row(
        "SELECT refused FROM audit_refusals WHERE organization_id = :organization AND key_id = :key"
        " AND hour_at = :hour",
        organization=organization_id,
        key=key_id,
        hour=hour,
    )
    assert row is not None, "it was inserted"
    return int(row[0])


def _hour(micros: int) -> int:
    return micros - micros % HOUR_MICROS

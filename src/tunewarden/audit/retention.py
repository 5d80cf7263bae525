"""How long an organization's events are kept: for ever, or for a number of days that it sets.

Whole parts expire, once every event in them and their digest are older: the log says when a digest was made, so that
who verifies can tell what has expired from what was taken out. Their digests and the hashes of their events stay, so
that a line that was exported before can still be proven.
"""

from datetime import datetime

from tunewarden.audit import digests, events
from tunewarden.audit.digests import Part
from tunewarden.audit.events import SERVER, Actor, EventType, record
from tunewarden.clock import to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden_receipts import receipt
from tunewarden_receipts.audit_digest import AuditDigestLeaf

DAYS_MIN = 90
DAYS_MAX = 36_500
DAY_MICROS = 24 * 3600 * 1_000_000
# Events deleted in one transaction: others wait for it.
_BATCH = 200


def days_of(tx: Tx, organization_id: str) -> int | None:
    """Return for how many days an organization's events are kept; None: for ever."""
    row = tx.row(
        "SELECT days FROM audit_retention WHERE organization_id = :organization",
        organization=organization_id,
    )
    return int(row[0]) if row else None


def set_days(tx: Tx, organization_id: str, days: int | None, actor: Actor) -> None:
    """Set it. Raises Error(INVALID)."""
    if days is not None and not DAYS_MIN <= days <= DAYS_MAX:
        raise Error(
            Kind.INVALID,
            f"Invalid value for 'days': {days}. Use {DAYS_MIN} to {DAYS_MAX} days, or null to keep events for ever.",
            param="days",
            code="invalid_value",
        )
    if days == days_of(tx, organization_id):
        return
    if days is None:
        tx.run(
            "DELETE FROM audit_retention WHERE organization_id = :organization",
            organization=organization_id,
        )
    else:
        tx.run(
            "INSERT INTO audit_retention VALUES (:organization, :days)"
            " ON CONFLICT (organization_id) DO UPDATE SET days = excluded.days",
            organization=organization_id,
            days=days,
        )
    record(
        tx,
        EventType.AUDIT_RETENTION_UPDATED,
        organization_id=organization_id,
        actor=actor,
        resource_id=organization_id,
        days=days,
    )


def apply(database: Database, now: int) -> int:
    """Delete the events that have expired at `now` (microseconds); return how many."""
    with database.read() as tx:
        found = tx.rows("SELECT organization_id, days FROM audit_retention")
    count = 0
    for organization_id, days in found:
        before = now - int(days) * DAY_MICROS
        while (deleted := _expire_next(database, str(organization_id), before)) is not None:
            count += deleted
    return count


def _expire_next(database: Database, organization_id: str, before: int) -> int | None:
    """Let an organization's oldest part expire, if it is due; return how many events were deleted, None if none is due.

    A part whose deletion a crash interrupted is finished first.
    """
    deleted = _finish(database, organization_id)
    with database.read() as tx:
        part = digests.oldest_kept(tx, organization_id)
        if part is None or max(part.last_at, _digested_at(tx, part)) >= before:
            return deleted or None
    with database.write(below_floor=True) as tx:
        digests.expire(tx, part)
        record(
            tx,
            EventType.AUDIT_EXPIRED,
            organization_id=organization_id,
            actor=SERVER,
            resource_id=organization_id,
            part=part.said.number,
            events=part.said.events,
        )
    return deleted + _finish(database, organization_id)


def _digested_at(tx: Tx, part: Part) -> int:
    """Return when a part's digest was made, in microseconds."""
    digest = digests.find(tx, part.sequence)
    assert digest is not None, "a part refers to its digest"
    leaf = receipt.parse(digest.statement or b"")
    assert isinstance(leaf, AuditDigestLeaf), "a digest's statement is one of an audit digest"
    return to_micros(datetime.fromisoformat(leaf.digested_at))


def _finish(database: Database, organization_id: str) -> int:
    """Delete the events of an organization's newest expired part; return how many."""
    count = 0
    with database.read() as tx:
        part = digests.newest_expired(tx, organization_id)
    if part is None:
        return 0
    first_n = part.first_n
    while page := _page(database, first_n, part.last_n):
        own = [n for n, organization in page if organization == organization_id]
        if own:
            with database.write(below_floor=True) as tx:
                for n in own:
                    events.delete(tx, n)
        count += len(own)
        first_n = page[-1][0] + 1
    return count


def _page(database: Database, first_n: int, last_n: int) -> list[tuple[int, str]]:
    with database.read() as tx:
        return events.numbers(tx, first_n, last_n, _BATCH)

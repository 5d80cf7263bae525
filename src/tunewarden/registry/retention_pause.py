"""Pauses of retention: after a restore, a replay or a jump of the clock an organization's rules only preview.

What happened since the older copy was made is not known any more: holds, aliases, use. An Owner looks, and resumes.
"""

from dataclasses import dataclass
from enum import StrEnum

from tunewarden import audit
from tunewarden.db.database import Tx


class PauseReason(StrEnum):
    """Why retention is paused."""

    CLOCK = "clock"
    RESTORE = "restore"
    REPLAY = "replay"


SAID = {
    PauseReason.CLOCK: "the clock jumped by more than a day, or the server was off for as long",
    PauseReason.RESTORE: "the database is an older copy: holds, aliases and use since then are not known",
    PauseReason.REPLAY: "deletions were replayed from the log, so that something was restored",
}


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when retention is paused, in microseconds since 1970, and why."""

    since: int
    reason: PauseReason


def of(tx: Tx, organization_id: str) -> Pause | None:
    """Return an organization's pause, if there is one."""
    row = tx.row(
        "SELECT paused_at, reason FROM retention_pauses"
        " WHERE organization_id = :organization AND paused_at IS NOT NULL",
        organization=organization_id,
    )
    return Pause(int(row[0]), PauseReason(row[1])) if row else None


def include(tx: Tx, organization_id: str) -> None:
    """Let later pauses be about an organization too: it has rules from now on."""
    tx.run(
        "INSERT INTO retention_pauses (organization_id) VALUES (:organization)"
        " ON CONFLICT (organization_id) DO NOTHING",
        organization=organization_id,
    )


def pause_all(tx: Tx, reason: PauseReason) -> None:
    """Pause the rules of all organizations that have some; those that are paused stay so.

    After a restore or a replay every organization is paused: it may have had rules, holds and aliases that the older
    copy does not know, and may make rules again before anybody has looked.
    """
    if reason is not PauseReason.CLOCK:
        tx.run(
            "INSERT INTO retention_pauses (organization_id) SELECT o.id FROM organizations o"
            " WHERE NOT EXISTS (SELECT 1 FROM retention_pauses p WHERE p.organization_id = o.id)"
        )
    rows = tx.rows("SELECT organization_id FROM retention_pauses WHERE paused_at IS NULL")
    for (organization_id,) in rows:
        tx.run(
            "UPDATE retention_pauses SET paused_at = :now, reason = :reason WHERE organization_id = :organization",
            now=tx.now_micros,
            reason=reason.value,
            organization=organization_id,
        )
        audit.record(
            tx,
            audit.EventType.RETENTION_PAUSED,
            organization_id=organization_id,
            actor=audit.SERVER,
            resource_id=organization_id,
            reason=reason.value,
        )


def resume(tx: Tx, organization_id: str) -> bool:
    """Let an organization's rules act again; return False if they were not paused."""
    return bool(
        tx.run(
            "UPDATE retention_pauses SET paused_at = NULL, reason = NULL"
            " WHERE organization_id = :organization AND paused_at IS NOT NULL",
            organization=organization_id,
        )
    )

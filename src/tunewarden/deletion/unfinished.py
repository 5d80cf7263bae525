"""Which deletions go on: not answerable yet (before D8), or answered with blobs to erase (before D9)."""

from dataclasses import dataclass

from tunewarden.db.database import Database
from tunewarden.deletion import records
from tunewarden.identity.policy import Action, Caller, authorize


def unanswered(database: Database) -> list[str]:
    """Return the ids of deletions that are not done up to D8, oldest first."""
    with database.read() as tx:
        rows = tx.rows("SELECT id FROM deletions WHERE deleted_at IS NULL ORDER BY n")
    return [str(row[0]) for row in rows]


def evicted(database: Database, *, limit: int) -> list[records.Deletion]:
    """Return the oldest deletions stored as done up to D5, but not up to D8."""
    with database.read() as tx:
        rows = tx.rows(
            f"SELECT {records.COLUMNS} {records.FROM} WHERE d.deleted_at IS NULL AND d.evicted_at IS NOT NULL"
            " ORDER BY d.n LIMIT :limit",
            limit=limit,
        )
    return [records.from_row(row) for row in rows]


def unanswered_of(database: Database, caller: Caller, *, limit: int) -> list[records.Deletion]:
    """Return the oldest deletions of the caller's organization that are not done up to D8. Raises Error(FORBIDDEN)."""
    authorize(caller, Action.READ_DELETIONS)
    with database.read() as tx:
        rows = tx.rows(
            f"SELECT {records.COLUMNS} {records.FROM} WHERE d.deleted_at IS NULL AND d.organization_id = :organization"
            " ORDER BY d.n LIMIT :limit",
            organization=caller.organization_id,
            limit=limit,
        )
    return [records.from_row(row) for row in rows]


def unerased(database: Database) -> list[str]:
    """Return the ids of deletions that are done up to D8, and not up to D9, oldest first."""
    with database.read() as tx:
        rows = tx.rows(
            "SELECT id FROM deletions WHERE blobs_erased_at IS NULL AND deleted_at IS NOT NULL ORDER BY n"
        )
    return [str(row[0]) for row in rows]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """How many deletions are not answerable (before D8), how many not erased (before D9), and since when.

    `pending_since` is when the oldest was requested, `answered_since` when the oldest unerased one was deleted.
    """

    pending: int
    pending_since: int | None
    unerased: int
    answered_since: int | None


def counted(database: Database) -> Unfinished:
    """Count the unfinished deletions of all organizations."""
    row = database.peek(
        "SELECT COUNT(*), MIN(deleted_at), COUNT(CASE WHEN deleted_at IS NULL THEN 1 END),"
        " MIN(CASE WHEN deleted_at IS NULL THEN requested_at END)"
        " FROM deletions WHERE blobs_erased_at IS NULL"
    )
    assert row is not None, "an aggregate has one row"
    unerased, answered_since, pending, pending_since = row
    return Unfinished(pending, pending_since, unerased, answered_since)


def counted_of(database: Database, caller: Caller) -> dict[str, int]:
    """Count the unfinished deletions of the caller's organization, by status. Raises Error(FORBIDDEN)."""
    authorize(caller, Action.READ_DELETIONS)
    row = database.peek(
        "SELECT COUNT(*), COUNT(deleted_at) FROM deletions WHERE blobs_erased_at IS NULL"
        " AND organization_id || '' = :organization",  # as `records.STATUSES`
        organization=caller.organization_id,
    )
    assert row is not None, "an aggregate has one row"
    unfinished, deleted = row
    return {"deleting": unfinished - deleted, "deleted": deleted}


def newest_request(database: Database) -> int | None:
    """Return when the newest unfinished deletion was requested."""
    row = database.peek("SELECT MAX(requested_at) FROM deletions WHERE blobs_erased_at IS NULL")
    return row[0] if row else None


def oldest_unerased(database: Database) -> int | None:
    """Return when the oldest deletion with pending blobs (D9) was deleted."""
    row = database.peek("SELECT MIN(deleted_at) FROM deletions WHERE blobs_erased_at IS NULL")
    return row[0] if row else None

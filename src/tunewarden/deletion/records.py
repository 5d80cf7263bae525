"""The intent log of deletions: one row each, which says what was asked, done and found."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden.db.database import Database, Row, Tx
from tunewarden.deletion.protocol import Progress, Step
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller

COLUMNS = (
    "d.n, d.id, d.organization_id, d.requested_by, d.request_id, d.idempotency_key, d.requested_at,"
    " d.epoch, d.log_since, d.fenced_at, d.fence_report, d.evicted_at, d.evict_report,"
    " d.key_erased_at, d.key_report, d.statement, d.log_index, d.receipt, d.deleted_at, d.blobs_report,"
    " d.blobs_log_since, d.blobs_log_index, d.blobs_erased_at,"
    " a.n, a.kind, a.id, a.internal_id, a.key_id, a.manifest_sha256,"
    " (SELECT p.id FROM deletions p WHERE p.n = d.parent_n)"
)
FROM = "FROM deletions d JOIN artifacts a ON a.n = d.artifact_n"


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion and what it is of. Times are microseconds since 1970; reports are JSON."""

    n: int
    id: str
    organization_id: str
    requested_by: str
    request_id: str
    idempotency_key: str | None
    requested_at: int
    epoch: int
    log_since: int
    fenced_at: int | None
    fence_report: str | None
    evicted_at: int | None
    evict_report: str | None
    key_erased_at: int | None
    key_report: str | None
    statement: bytes | None
    log_index: int | None
    receipt: bytes | None
    deleted_at: int | None
    blobs_report: str | None
    blobs_log_since: int | None
    blobs_log_index: int | None
    blobs_erased_at: int | None
    artifact_n: int
    kind: str
    artifact_id: str
    internal_id: str
    key_id: str
    manifest_sha256: str
    # The deletion that this one goes with, by its id.
    parent: str | None

    @property
    def progress(self) -> Progress:
        """Which steps are noted as done."""
        noted = {
            Step.FENCE: self.fenced_at,
            Step.EVICT: self.evicted_at,
            Step.ERASE_KEY: self.key_erased_at,
            Step.LOG: self.log_index,
            Step.FINISH: self.deleted_at,
            Step.ERASE_BLOBS: self.blobs_erased_at,
        }
        return Progress(frozenset(step for step, mark in noted.items() if mark is not None))

    @property
    def is_deleted(self) -> bool:
        """Whether the answer may be 200."""
        return self.deleted_at is not None


def find(database: Database, deletion_id: str) -> Deletion | None:
    """Return a deletion by its id, or None."""
    row = database.peek(f"SELECT {COLUMNS} {FROM} WHERE d.id = :id", id=deletion_id)
    return Deletion(*row) if row else None


def find_own(database: Database, caller: Caller, deletion_id: str) -> Deletion:
    """Return a deletion of the caller's organization. Raises Error(NOT_FOUND), for foreign ones too."""
    deletion = find(database, deletion_id)
    if deletion is None or deletion.organization_id != caller.organization_id:
        raise Error(
            Kind.NOT_FOUND,
            f"The deletion '{deletion_id[:100]}' does not exist.",
            param="deletion_id",
            code="deletion_not_found",
        )
    return deletion


def receipt_of(deletion: Deletion) -> bytes:
    """Return the receipt, the exact bytes that were stored. Raises Error(NOT_FOUND) before D8."""
    if deletion.receipt is None:
        raise Error(
            Kind.NOT_FOUND,
            f"The deletion {deletion.id} is not finished, so it has no receipt yet.",
            param="deletion_id",
            code="receipt_not_ready",
        )
    return deletion.receipt


def find_of(tx: Tx, artifact_n: int) -> Deletion | None:
    """Return the deletion of an artifact, or None."""
    row = tx.row(f"SELECT {COLUMNS} {FROM} WHERE d.artifact_n = :n", n=artifact_n)
    return Deletion(*row) if row else None


def parts_of(database: Database, deletion: Deletion) -> list[Deletion]:
    """Return the deletions that go with this one."""
    with database.read() as tx:
        rows = tx.rows(f"SELECT {COLUMNS} {FROM} WHERE d.parent_n = :n ORDER BY d.n", n=deletion.n)
    return [Deletion(*row) for row in rows]


def unanswered(database: Database) -> list[str]:
    """Return the ids of deletions that are not done up to D8, oldest first."""
    with database.read() as tx:
        rows = tx.rows("SELECT id FROM deletions WHERE deleted_at IS NULL ORDER BY n")
    return [str(row[0]) for row in rows]


def evicted(database: Database, *, limit: int) -> list[Deletion]:
    """Return the oldest deletions that are noted as done up to D5, and not up to D8."""
    with database.read() as tx:
        rows = tx.rows(
            f"SELECT {COLUMNS} {FROM} WHERE d.deleted_at IS NULL AND d.evicted_at IS NOT NULL"
            " ORDER BY d.n LIMIT :limit",
            limit=limit,
        )
    return [Deletion(*row) for row in rows]


def unerased(database: Database) -> list[str]:
    """Return the ids of deletions that are done up to D8, and not up to D9, oldest first."""
    with database.read() as tx:
        rows = tx.rows(
            "SELECT id FROM deletions WHERE blobs_erased_at IS NULL AND deleted_at IS NOT NULL ORDER BY n"
        )
    return [str(row[0]) for row in rows]


def newest_request(database: Database) -> int | None:
    """Return when the newest unfinished deletion was asked for."""
    row = database.peek("SELECT MAX(requested_at) FROM deletions WHERE blobs_erased_at IS NULL")
    return row[0] if row else None


def oldest_unerased(database: Database) -> int | None:
    """Return since when the oldest deletion waits for its blobs to be erased (D9)."""
    row = database.peek("SELECT MIN(deleted_at) FROM deletions WHERE blobs_erased_at IS NULL")
    return row[0] if row else None


def page(
    database: Database, organization_id: str, *, after: str | None, limit: int
) -> Sequence[Deletion]:
    """Return an organization's deletions, newest first, those older than `after` if it is given."""
    with database.read() as tx:
        rows: list[Row] = tx.rows(
            f"SELECT {COLUMNS} {FROM} WHERE d.organization_id = :organization"  # noqa: S608
            # Not an OR, which would read all that come before `after` as well.
            " AND d.n < CASE WHEN :after IS NULL THEN 9223372036854775807"
            " ELSE (SELECT n FROM deletions WHERE id = :after) END"
            " ORDER BY d.n DESC LIMIT :limit",
            organization=organization_id,
            after=after,
            limit=limit,
        )
    return [Deletion(*row) for row in rows]


def record_facts(tx: Tx, deletion: Deletion, **columns: Any) -> None:
    """Write what a step found. Only columns of this module's table; JSON for what is not a scalar."""
    known = set(Deletion.__slots__)
    if not known.issuperset(columns):
        raise RuntimeError(f"unknown columns: {sorted(set(columns) - known)}")
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    values = {
        name: json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value
        for name, value in columns.items()
    }
    tx.run(f"UPDATE deletions SET {assignments} WHERE n = :n", n=deletion.n, **values)  # noqa: S608


def record_blobs_report(tx: Tx, deletion_id: str, report: str, log_since: int) -> None:
    """Write what the erasure of a deletion's blobs found, unless that is known or it is unknown here."""
    tx.run(
        "UPDATE deletions SET blobs_report = :report, blobs_log_since = :since"
        " WHERE id = :id AND blobs_report IS NULL",
        report=report,
        since=log_since,
        id=deletion_id,
    )

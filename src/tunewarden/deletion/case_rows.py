"""Cases: deletions that one transaction committed, their members, and what is stored of their summary."""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import shown

COLUMNS = (
    "c.n, c.id, c.organization_id, a.id, c.requested_by, c.request_id, c.requested_at, c.salt, c.size, c.hidden,"
    " c.log_since, c.statement, c.log_index, c.receipt, c.finished_at"
)
FROM = "FROM deletion_cases c LEFT JOIN artifacts a ON a.n = c.origin_n"


class CaseStatus(StrEnum):
    """The state of a case, for clients."""

    DELETING = "deleting"
    # Every member is deleted (D8), and the summary is in the log.
    COMPLETE = "complete"
    # The same; but other artifacts belong to it that who asked may not see, and they stay.
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class Case:
    """A case. Times are microseconds since 1970; `origin_id` is what it began with, None for a list."""

    n: int
    id: str
    organization_id: str
    origin_id: str | None
    requested_by: str
    request_id: str
    requested_at: int
    salt: bytes
    size: int
    hidden: int
    log_since: int | None
    statement: bytes | None
    log_index: int | None
    receipt: bytes | None
    finished_at: int | None

    @property
    def status(self) -> CaseStatus:
        """Its state. Never complete if something was hidden from who asked."""
        if self.finished_at is None:
            return CaseStatus.DELETING
        return CaseStatus.PARTIAL if self.hidden else CaseStatus.COMPLETE


@dataclass(frozen=True, slots=True)
class CaseMember:
    """A member of a case: its deletion, and how far that is. Times are microseconds since 1970."""

    deletion_id: str
    kind: str
    artifact_id: str
    deleted_at: int | None
    blobs_erased_at: int | None
    log_index: int | None


def salt_of(origin_salt: bytes, case_id: str) -> bytes:
    """Return a case's salt, from that of what it began with: each backup that knows that can open the leaf (D10)."""
    return hmac.digest(origin_salt, f"deletion case {case_id}".encode(), "sha256")


def insert(  # noqa: PLR0917  each is of another meaning, and all are named by the caller
    tx: Tx,
    case_id: str,
    organization_id: str,
    origin_n: int | None,
    requested_by: str,
    request_id: str,
    salt: bytes,
    hidden: int,
    deletions: Iterable[int],
    *,
    size: int | None = None,
    requested_at: int | None = None,
) -> int:
    """Insert a case of these deletions (their numbers); return its number. `size` is how many it has, if not these."""
    numbers = sorted(set(deletions))
    tx.run(
        "INSERT INTO deletion_cases (id, organization_id, origin_n, requested_by, request_id, requested_at, salt,"
        " size, hidden) VALUES (:id, :organization, :origin, :by, :request, :now, :salt, :size, :hidden)",
        id=case_id,
        organization=organization_id,
        origin=origin_n,
        by=requested_by,
        request=request_id,
        now=tx.now_micros if requested_at is None else requested_at,
        salt=salt,
        size=len(numbers) if size is None else size,
        hidden=hidden,
    )
    row = tx.row("SELECT n FROM deletion_cases WHERE id = :id", id=case_id)
    assert row is not None, "the row was written in this transaction"
    for number in numbers:
        tx.run("INSERT INTO case_members VALUES (:case, :deletion)", case=row[0], deletion=number)
    return int(row[0])


def find(tx: Tx, case_id: str) -> Case | None:
    """Return a case of any organization, or None."""
    row = tx.row(f"SELECT {COLUMNS} {FROM} WHERE c.id = :id", id=case_id)
    return Case(*row) if row else None


def of_origin(tx: Tx, artifact_n: int) -> Case | None:
    """Return the case that began with an artifact, or None."""
    row = tx.row(f"SELECT {COLUMNS} {FROM} WHERE c.origin_n = :n", n=artifact_n)
    return Case(*row) if row else None


def by_n(database: Database, n: int) -> Case:
    """Return the case with this number; it must exist."""
    row = database.peek(f"SELECT {COLUMNS} {FROM} WHERE c.n = :n", n=n)
    assert row is not None, "a case's row is never removed"
    return Case(*row)


def receipt_of(case: Case) -> bytes:
    """Return the exact stored bytes of the summary's receipt. Raises Error(NOT_FOUND) before the case is finished."""
    if case.receipt is None:
        raise Error(
            Kind.NOT_FOUND,
            f"The deletion case {case.id} is not finished, so it has no receipt yet.",
            param="case_id",
            code="receipt_not_ready",
        )
    return case.receipt


def is_finished(database: Database, n: int) -> bool:
    """Return whether a case is finished: one read by primary key."""
    row = database.peek("SELECT finished_at FROM deletion_cases WHERE n = :n", n=n)
    return row is not None and row[0] is not None


def unfinished(database: Database) -> list[Case]:
    """Return the cases that are not finished, oldest first."""
    with database.read() as tx:
        # By the partial index alone: it is asked each second.
        rows = tx.rows("SELECT n FROM deletion_cases WHERE finished_at IS NULL ORDER BY n")
    return [by_n(database, row[0]) for row in rows]


def find_own(database: Database, caller: Caller, case_id: str) -> Case:
    """Return a case of the caller's organization. Raises Error(FORBIDDEN, NOT_FOUND); NOT_FOUND for foreign ones too."""
    authorize(caller, Action.READ_DELETIONS)
    with database.read() as tx:
        case = find(tx, case_id)
    if case is None or case.organization_id != caller.organization_id:
        raise Error(
            Kind.NOT_FOUND,
            f"The deletion case '{shown(case_id)}' does not exist.",
            param="case_id",
            code="deletion_case_not_found",
        )
    return case


def page(database: Database, caller: Caller, *, after: str | None, limit: int) -> Sequence[Case]:
    """Return the cases of the caller's organization, newest first; `after` is the cursor, one of them.

    Raises Error(FORBIDDEN, INVALID).
    """
    authorize(caller, Action.READ_DELETIONS)
    with database.read() as tx:
        before = cursors.position(
            tx.row,
            "SELECT n FROM deletion_cases WHERE id = :after AND organization_id = :organization",
            after=after,
            first=cursors.AFTER_ALL,
            organization=caller.organization_id,
        )
        rows: list[Row] = tx.rows(
            f"SELECT {COLUMNS} {FROM} WHERE c.organization_id = :organization"
            " AND c.n < :before ORDER BY c.n DESC LIMIT :limit",
            organization=caller.organization_id,
            before=before,
            limit=limit,
        )
    return [Case(*row) for row in rows]


def members_of(database: Database, case: Case) -> list[CaseMember]:
    """Return the members of a case in the order in which they are deleted: at most `together.MEMBERS_MAX`."""
    with database.read() as tx:
        rows = tx.rows(
            "SELECT d.id, a.kind, a.id, d.deleted_at, d.blobs_erased_at, d.log_index FROM case_members m"
            " JOIN deletions d ON d.n = m.deletion_n JOIN artifacts a ON a.n = d.artifact_n"
            " WHERE m.case_n = :case ORDER BY m.deletion_n",
            case=case.n,
        )
    return [CaseMember(*row) for row in rows]


def undeleted(database: Database, case_n: int, *, after: int, limit: int) -> list[tuple[int, str]]:
    """Return number and id of up to `limit` deletions of a case that are not done up to D8, after a number."""
    with database.read() as tx:
        rows = tx.rows(
            "SELECT d.n, d.id FROM case_members m JOIN deletions d ON d.n = m.deletion_n"
            " WHERE m.case_n = :case AND m.deletion_n > :after AND d.deleted_at IS NULL"
            " ORDER BY m.deletion_n LIMIT :limit",
            case=case_n,
            after=after,
            limit=limit,
        )
    return [(int(n), str(deletion_id)) for n, deletion_id in rows]


def receipts_of(tx: Tx, case_n: int, *, after: int, limit: int) -> list[tuple[int, bytes]]:
    """Return number and receipt of up to `limit` deleted members of a case, after a number."""
    rows = tx.rows(
        "SELECT d.n, d.receipt FROM case_members m JOIN deletions d ON d.n = m.deletion_n"
        " WHERE m.case_n = :case AND m.deletion_n > :after AND d.deleted_at IS NOT NULL"
        " ORDER BY m.deletion_n LIMIT :limit",
        case=case_n,
        after=after,
        limit=limit,
    )
    return [(int(n), bytes(receipt)) for n, receipt in rows]


def note_statement(tx: Tx, case_n: int, statement: bytes, log_since: int) -> None:
    """Store what the summary's leaf will say, once, and the log's size before it."""
    tx.run(
        "UPDATE deletion_cases SET statement = :statement, log_since = :since"
        " WHERE n = :n AND statement IS NULL AND finished_at IS NULL",
        statement=statement,
        since=log_since,
        n=case_n,
    )


def finish(tx: Tx, case_n: int, log_index: int, receipt: bytes) -> bool:
    """Store where the summary's leaf is, and its receipt; return False if they are stored already."""
    changed = tx.run(
        "UPDATE deletion_cases SET log_index = :at, receipt = :receipt, finished_at = :now"
        " WHERE n = :n AND finished_at IS NULL",
        at=log_index,
        receipt=receipt,
        now=tx.now_micros,
        n=case_n,
    )
    return changed > 0

"""SQL on uploads, and which operations each state allows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db import cursors, lists
from tunewarden.db.database import Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry import drafts
from tunewarden.registry.artifacts import ID_LENGTH_MAX

COLUMNS = (
    "n, id, internal_id, organization_id, project_id, filename, sealed_name, purpose, mime_type, bytes, status,"
    " file_n, file_seconds, created_by, created_at, expires_at"
)
# Per project; saved states of its jobs count too.
UNFINISHED_MAX = 2000


class Status(StrEnum):
    """The status of an upload, in OpenAI's words."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload. `bytes` is the announced size; times are microseconds; `file_seconds` is its file's lifetime.

    `filename` is empty until `Uploads` has decrypted it.
    """

    n: int
    id: str
    internal_id: str
    organization_id: str
    project_id: str
    filename: str
    sealed_name: bytes | None
    purpose: str
    mime_type: str
    bytes: int
    status: Status
    file_n: int | None
    file_seconds: int | None
    created_by: str
    created_at: int
    expires_at: int


def missing(upload_id: str) -> Error:
    """Return the one answer for an upload that is unknown or foreign (I9)."""
    return Error(
        Kind.NOT_FOUND, f"No such Upload object: {upload_id[:ID_LENGTH_MAX]}", param="upload_id"
    )


def own(tx: Tx, caller: Caller, upload_id: str) -> Upload:
    """Return an upload of the caller's project. Raises Error(NOT_FOUND)."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM uploads WHERE id = :id AND organization_id = :organization"
        " AND project_id = :project",
        id=upload_id,
        organization=caller.organization_id,
        project=caller.project_id,
    )
    if row is None:
        raise missing(upload_id)
    return of_row(row)


def of_row(row: Row) -> Upload:
    """Convert a row that begins with COLUMNS."""
    fields: list[Any] = [Status(value) if at == 10 else value for at, value in enumerate(row)]
    return Upload(*fields)


def page(tx: Tx, caller: Caller, *, after: str | None, limit: int) -> list[Upload]:
    """Return up to `limit` uploads in progress of the caller's project, the newest first. Raises Error(INVALID)."""
    own_project: dict[str, Any] = {
        "organization": caller.organization_id,
        "project": caller.project_id,
    }
    start = cursors.position(
        tx.row,
        # One that has ended since is a cursor too: its row stays.
        "SELECT n FROM uploads WHERE id = :after AND organization_id = :organization AND project_id = :project",
        after=after,
        first=cursors.AFTER_ALL,
        **own_project,
    )
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM uploads WHERE project_id = :project AND organization_id = :organization"
        " AND status = 'pending' AND expires_at > :now AND n < :start ORDER BY n DESC LIMIT :limit",
        now=tx.now_micros,
        start=start,
        limit=limit,
        **own_project,
    )
    return [of_row(row) for row in rows]


def pending(tx: Tx, caller: Caller, upload_id: str) -> Upload:
    """Return a pending upload. Raises Error(NOT_FOUND), Error(INVALID)."""
    upload = own(tx, caller, upload_id)
    check_pending(tx, upload)
    return upload


def check_pending(tx: Tx, upload: Upload) -> None:
    """Check that an upload is pending. Raises Error(INVALID)."""
    status = upload.status
    if status is Status.PENDING and upload.expires_at <= tx.now_micros:
        status = Status.EXPIRED  # Its row is updated shortly.
    if status is not Status.PENDING:
        raise Error(
            Kind.INVALID,
            f"The upload {upload.id} is {status}, no longer pending. Create another one.",
            param="upload_id",
            code="upload_not_pending",
        )


def claim_draft(tx: Tx, internal_id: str) -> None:
    """Note that a new draft belongs to an upload. Raises Error(INVALID) if the draft is gone.

    `tidy` erases a draft that stays unclaimed for too long.
    """
    if not drafts.claim(tx, internal_id):
        raise gone()


def insert(tx: Tx, upload: Upload) -> Upload:
    """Insert a pending upload; return it with its number. Its name is stored encrypted only."""
    tx.run(
        "INSERT INTO uploads (id, internal_id, organization_id, project_id, filename,"
        " purpose, mime_type, bytes, status, file_seconds, created_by, created_at,"
        " expires_at, sealed_name) VALUES (:id, :internal, :organization, :project, '', :purpose,"
        " :mime, :bytes, 'pending', :seconds, :by, :now, :expires, :name)",
        id=upload.id,
        internal=upload.internal_id,
        organization=upload.organization_id,
        project=upload.project_id,
        name=upload.sealed_name,
        purpose=upload.purpose,
        mime=upload.mime_type,
        bytes=upload.bytes,
        seconds=upload.file_seconds,
        by=upload.created_by,
        now=upload.created_at,
        expires=upload.expires_at,
    )
    row = tx.row("SELECT n FROM uploads WHERE id = :id", id=upload.id)
    assert row is not None, "the row was written in this transaction"
    return replace(upload, n=int(row[0]))


def count_pending(tx: Tx, project_id: str) -> int:
    """Return the number of unfinished uploads of a project."""
    row = tx.row(
        "SELECT COUNT(*) FROM uploads WHERE project_id = :project AND status = 'pending'",
        project=project_id,
    )
    return 0 if row is None else int(row[0])


def check_unfinished(tx: Tx, caller: Caller) -> None:
    """Check that the project may have another draft. Raises Error(RATE_LIMITED)."""
    if drafts.count_of(tx, caller.project_id) >= UNFINISHED_MAX:
        raise Error(
            Kind.RATE_LIMITED,
            f"Too many unfinished uploads in this project: {UNFINISHED_MAX} of {UNFINISHED_MAX}. Complete or cancel some.",
            code="too_many_uploads",
        )


def resized(upload: Upload, size: int | None) -> Upload:
    """Return an upload with the size that it has after all; None is what was announced. Raises Error(INVALID)."""
    if size is None:
        return upload
    if not 0 <= size <= upload.bytes:
        raise Error(
            Kind.INVALID,
            f"bytes must be at most what the upload was created for ({upload.bytes}).",
            param="bytes",
        )
    return replace(upload, bytes=size)


def end(tx: Tx, upload: Upload, status: Status) -> bool:
    """End a pending upload with a status, and clear its name, which is personal data."""
    return bool(
        tx.run(
            "UPDATE uploads SET status = :status, filename = '', sealed_name = NULL WHERE n = :n AND status = 'pending'",
            status=status.value,
            n=upload.n,
        )
    )


def complete(tx: Tx, upload: Upload, file_n: int) -> None:
    """Note that a pending upload became this file."""
    tx.run(
        "UPDATE uploads SET status = 'completed', file_n = :file, bytes = :bytes WHERE n = :n",
        file=file_n,
        bytes=upload.bytes,
        n=upload.n,
    )


def due(tx: Tx, *, limit: int) -> list[Upload]:
    """Return expired pending uploads, the oldest first."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM uploads WHERE status = 'pending'"
        " AND expires_at <= :now ORDER BY expires_at LIMIT :limit",
        now=tx.now_micros,
        limit=limit,
    )
    return [of_row(row) for row in rows]


def untidy(tx: Tx, *, limit: int) -> list[tuple[int, str]]:
    """Return (number, internal id) of ended uploads that may have leftovers."""
    rows = tx.rows(
        "SELECT n, internal_id FROM uploads WHERE status <> 'pending' AND is_tidy = 0 LIMIT :limit",
        limit=limit,
    )
    return [(int(n), str(internal_id)) for n, internal_id in rows]


def note_tidy(tx: Tx, n: int) -> None:
    """Note that an ended upload has no leftovers, unless a part remains."""
    tx.run(
        "UPDATE uploads SET is_tidy = 1 WHERE n = :n"
        " AND NOT EXISTS (SELECT 1 FROM upload_parts WHERE upload_n = :n)",
        n=n,
    )


def forget_files(tx: Tx, numbers: Sequence[int]) -> None:
    """Clear personal data in the uploads of deleted files, those that were uploaded in parts."""
    for listed, values in lists.parts(numbers):
        tx.run(
            f"UPDATE uploads SET filename = '', sealed_name = NULL WHERE file_n IN ({listed})",
            **values,
        )


def record(tx: Tx, event: audit.EventType, upload: Upload, actor: Actor, **details: object) -> None:
    """Record an audit event of an upload, in the caller's transaction."""
    audit.record(
        tx,
        event,
        organization_id=upload.organization_id,
        actor=actor,
        resource_id=upload.id,
        purpose=upload.purpose,
        bytes=upload.bytes,
        **details,
    )


def gone() -> Error:
    """Return the error for an upload that ended while it was being used."""
    return Error(
        Kind.INVALID,
        "The upload is no longer pending. Create another one.",
        param="upload_id",
        code="upload_not_pending",
    )

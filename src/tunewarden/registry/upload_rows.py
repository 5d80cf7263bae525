"""The rows of uploads and of their parts, and what may be done in which state."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry.artifacts import ID_LENGTH_MAX, SealedBlob
from tunewarden.registry.files import Sealed

COLUMNS = (
    "n, id, internal_id, organization_id, project_id, filename, purpose, mime_type, bytes, status,"
    " file_n, file_seconds, created_by, created_at, expires_at"
)
PART_BYTES_MAX = 64 * 1024 * 1024
PARTS_MAX = 10_000


class Status(StrEnum):
    """Where an upload is, by OpenAI's names."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload. `bytes` is what was announced; times are microseconds; `file_seconds` is its file's life."""

    n: int
    id: str
    internal_id: str
    organization_id: str
    project_id: str
    filename: str
    purpose: str
    mime_type: str
    bytes: int
    status: Status
    file_n: int | None
    file_seconds: int | None
    created_by: str
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Part:
    """One part that is stored whole. `created_at` is in microseconds."""

    id: str
    sealed: Sealed
    created_at: int


def missing(upload_id: str) -> Error:
    """Return the one answer for an upload that is unknown or foreign (I9)."""
    return Error(
        Kind.NOT_FOUND, f"No such Upload object: {upload_id[:ID_LENGTH_MAX]}", param="upload_id"
    )


def own(tx: Tx, caller: Caller, upload_id: str) -> Upload:
    """Return an upload of the caller's project. Raises Error(NOT_FOUND)."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM uploads WHERE id = :id AND organization_id = :organization"  # noqa: S608
        " AND project_id = :project",
        id=upload_id,
        organization=caller.organization_id,
        project=caller.project_id,
    )
    if row is None:
        raise missing(upload_id)
    return of_row(row)


def of_row(row: Row) -> Upload:
    """Return the upload of a row that begins with COLUMNS."""
    fields: list[Any] = [Status(value) if at == 9 else value for at, value in enumerate(row)]
    return Upload(*fields)


def pending(tx: Tx, caller: Caller, upload_id: str) -> Upload:
    """Return an upload that still takes parts. Raises Error(NOT_FOUND), Error(INVALID)."""
    upload = own(tx, caller, upload_id)
    check_pending(tx, upload)
    return upload


def check_pending(tx: Tx, upload: Upload) -> None:
    """Return if an upload still takes parts. Raises Error(INVALID)."""
    status = upload.status
    if status is Status.PENDING and upload.expires_at <= tx.now_micros:
        status = Status.EXPIRED  # Its row says so within a moment.
    if status is not Status.PENDING:
        raise Error(
            Kind.INVALID,
            f"The upload {upload.id} is {status}, no longer pending. Create another one.",
            param="upload_id",
            code="upload_not_pending",
        )


def claim_draft(tx: Tx, internal_id: str) -> None:
    """Note that a new draft is an upload's. Raises Error(INVALID) if it is gone.

    `tidy` takes a draft that waits for too long to be told whose it is.
    """
    if not tx.run("UPDATE drafts SET is_claimed = 1 WHERE internal_id = :id", id=internal_id):
        raise gone()


def make_whole(tx: Tx, part_id: str, sealed: Sealed) -> Part:
    """Note that a part is stored. Raises Error(INVALID) if its row was taken away meanwhile."""
    if not tx.run(
        "UPDATE upload_parts SET is_whole = 1, bytes = :bytes, sealed_bytes = :sealed,"
        " sealed_sha256 = :sha, created_at = :now WHERE id = :id",
        bytes=sealed.blob.bytes,
        sealed=sealed.blob.sealed_bytes,
        sha=sealed.sha256,
        now=tx.now_micros,
        id=part_id,
    ):
        raise gone()
    return Part(part_id, sealed, tx.now_micros)


def check_count(tx: Tx, upload: Upload) -> None:
    """Return if there may be one part more. Raises Error(INVALID)."""
    row = tx.row("SELECT COUNT(*) FROM upload_parts WHERE upload_n = :n", n=upload.n)
    if row is not None and row[0] >= PARTS_MAX:
        raise Error(
            Kind.INVALID, f"An upload may have {PARTS_MAX} parts. Send larger ones.", param="data"
        )


def check_room(tx: Tx, upload: Upload, size: int) -> None:
    """Return if a part of this size fits in. Raises Error(INVALID).

    Each byte may come twice: a client repeats a part whose answer was lost.
    """
    row = tx.row("SELECT SUM(bytes) FROM upload_parts WHERE upload_n = :n", n=upload.n)
    stored = int(row[0] or 0) if row else 0
    if size > upload.bytes or stored + size > 2 * upload.bytes:
        raise Error(
            Kind.INVALID,
            f"The upload was created for {upload.bytes} bytes; its parts have more.",
            param="data",
            code="upload_too_large",
        )


def chosen(tx: Tx, upload: Upload, part_ids: Sequence[str]) -> list[Part]:
    """Return the upload's parts in the order of `part_ids`. Raises Error(INVALID)."""
    rows = tx.rows(
        "SELECT id, blob, bytes, sealed_bytes, sealed_sha256, created_at FROM upload_parts"
        " WHERE upload_n = :n AND is_whole = 1",
        n=upload.n,
    )
    known = {row[0]: Part(row[0], Sealed(SealedBlob(*row[1:4]), row[4]), row[5]) for row in rows}
    for part_id in part_ids:
        if part_id not in known:
            raise Error(
                Kind.INVALID,
                f"The upload has no part '{part_id[:ID_LENGTH_MAX]}'.",
                param="part_ids",
            )
    if len(set(part_ids)) != len(part_ids):
        raise Error(Kind.INVALID, "A part may be named once.", param="part_ids")
    parts = [known[part_id] for part_id in part_ids]
    total = sum(part.sealed.blob.bytes for part in parts)
    if total != upload.bytes:
        raise Error(
            Kind.INVALID,
            f"The upload was created for {upload.bytes} bytes, but these parts have {total}.",
            param="part_ids",
            code="upload_size_mismatch",
        )
    return parts


def end(tx: Tx, upload: Upload, status: Status) -> bool:
    """Set the status of an upload that is pending; its name is personal data and goes with it."""
    return bool(
        tx.run(
            "UPDATE uploads SET status = :status, filename = '' WHERE n = :n AND status = 'pending'",
            status=status.value,
            n=upload.n,
        )
    )


def record(tx: Tx, event: audit.EventType, upload: Upload, actor: Actor, **details: object) -> None:
    """Write an audit event of an upload, in the caller's transaction."""
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

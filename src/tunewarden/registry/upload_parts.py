"""SQL on upload parts. A row is written before its bytes are stored, and removed when a file has them or they are erased."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.registry import upload_rows
from tunewarden.registry.artifacts import ID_LENGTH_MAX, SealedBlob
from tunewarden.registry.files import Sealed
from tunewarden.registry.upload_rows import Upload

PART_BYTES_MAX = 64 * 1024 * 1024
PARTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """One completely stored part. `created_at` is in microseconds."""

    id: str
    sealed: Sealed
    created_at: int


def insert(tx: Tx, upload: Upload, part_id: str, blob: str) -> None:
    """Insert an incomplete part, before its bytes are stored as `blob`."""
    tx.run(
        "INSERT INTO upload_parts VALUES (:id, :upload, :blob, 0, 0, 0, '', :now)",
        id=part_id,
        upload=upload.n,
        blob=blob,
        now=tx.now_micros,
    )


def make_whole(tx: Tx, part_id: str, sealed: Sealed) -> Part:
    """Note that a part is complete. Raises Error(INVALID) if its row was removed in the meantime."""
    if not tx.run(
        "UPDATE upload_parts SET is_whole = 1, bytes = :bytes, sealed_bytes = :sealed,"
        " sealed_sha256 = :sha, created_at = :now WHERE id = :id",
        bytes=sealed.blob.bytes,
        sealed=sealed.blob.sealed_bytes,
        sha=sealed.sha256,
        now=tx.now_micros,
        id=part_id,
    ):
        raise upload_rows.gone()
    return Part(part_id, sealed, tx.now_micros)


def check_count(tx: Tx, upload: Upload) -> None:
    """Check that the upload may get another part. Raises Error(INVALID)."""
    row = tx.row("SELECT COUNT(*) FROM upload_parts WHERE upload_n = :n", n=upload.n)
    if row is not None and row[0] >= PARTS_MAX:
        raise Error(
            Kind.INVALID,
            f"Too many parts in the upload (limit {PARTS_MAX}). Send larger parts.",
            param="data",
        )


def check_room(tx: Tx, upload: Upload, size: int) -> None:
    """Check that a part of this size fits. Raises Error(INVALID).

    Allows twice the announced size: a client repeats a part whose response was lost.
    """
    row = tx.row("SELECT SUM(bytes) FROM upload_parts WHERE upload_n = :n", n=upload.n)
    stored = int(row[0] or 0) if row else 0
    if size > upload.bytes or stored + size > 2 * upload.bytes:
        raise Error(
            Kind.INVALID,
            f"The parts exceed the {upload.bytes} bytes that the upload was created for.",
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
        raise Error(Kind.INVALID, "A part is listed twice.", param="part_ids")
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


def stored(tx: Tx, n: int) -> tuple[int, int]:
    """Return how many complete parts an upload has, and their bytes."""
    row = tx.row(
        "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM upload_parts WHERE upload_n = :n AND is_whole = 1",
        n=n,
    )
    assert row is not None, "an aggregate has one row"
    return int(row[0]), int(row[1])


def whole(tx: Tx, n: int) -> list[tuple[str, str]]:
    """Return (id, blob) of the complete parts of an upload."""
    rows = tx.rows("SELECT id, blob FROM upload_parts WHERE upload_n = :n AND is_whole = 1", n=n)
    return [(str(part_id), str(blob)) for part_id, blob in rows]


def stale(tx: Tx, n: int, *, before: int, limit: int) -> list[tuple[str, str]]:
    """Return (id, blob) of the parts of an upload that are complete, or began before a time."""
    rows = tx.rows(
        "SELECT id, blob FROM upload_parts WHERE upload_n = :n"
        " AND (is_whole = 1 OR created_at < :before) LIMIT :limit",
        n=n,
        before=before,
        limit=limit,
    )
    return [(str(part_id), str(blob)) for part_id, blob in rows]


def forget(tx: Tx, part_id: str) -> None:
    """Remove the row of a part whose bytes are erased or belong to a file."""
    tx.run("DELETE FROM upload_parts WHERE id = :id", id=part_id)


def forget_whole(tx: Tx, n: int) -> None:
    """Remove the rows of the complete parts of an upload whose bytes are erased."""
    tx.run("DELETE FROM upload_parts WHERE upload_n = :n AND is_whole = 1", n=n)

"""SQL on bulk deletions: the request that an Idempotency-Key belongs to, and what its filter chose."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind

# A key that is forgotten chooses anew, and deletes what nobody saw: so it is kept for long, and no new one drops it.
KEPT_MICROS = 30 * 24 * 3600 * 1_000_000
KEPT_MAX = 10_000
# So many expired ones go with each new one: their items too are many rows.
DROPPED_AT_ONCE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkDeletion:
    """A bulk deletion: `requested_by` is a key's id, `requested_at` in microseconds since 1970.

    `has_more`: its filter chose more than its items.
    """

    id: str
    organization_id: str
    requested_by: str
    idempotency_key: str
    request_sha256: str
    requested_at: int
    has_more: bool


def find(tx: Tx, requested_by: str, idempotency_key: str) -> BulkDeletion | None:
    """Return the bulk deletion of a key with this Idempotency-Key, or None."""
    row = tx.row(
        "SELECT id, organization_id, request_sha256, requested_at, has_more FROM bulk_deletions"
        " WHERE requested_by = :by AND idempotency_key = :key",
        by=requested_by,
        key=idempotency_key,
    )
    if row is None:
        return None
    return BulkDeletion(
        id=row[0],
        organization_id=row[1],
        requested_by=requested_by,
        idempotency_key=idempotency_key,
        request_sha256=row[2],
        requested_at=row[3],
        has_more=bool(row[4]),
    )


def insert(tx: Tx, bulk: BulkDeletion, numbers: Sequence[int]) -> None:
    """Insert a bulk deletion and the artifacts that its filter chose; the organization's expired ones go.

    Raises Error(QUOTA_EXCEEDED) if it has too many.
    """
    _drop_expired(tx, bulk.organization_id)
    _check_room(tx, bulk.organization_id)
    tx.run(
        "INSERT INTO bulk_deletions (id, organization_id, requested_by, idempotency_key, request_sha256,"
        " requested_at, has_more) VALUES (:id, :organization, :by, :key, :sha, :at, :more)",
        id=bulk.id,
        organization=bulk.organization_id,
        by=bulk.requested_by,
        key=bulk.idempotency_key,
        sha=bulk.request_sha256,
        at=bulk.requested_at,
        more=int(bulk.has_more),
    )
    row = tx.row("SELECT n FROM bulk_deletions WHERE id = :id", id=bulk.id)
    assert row is not None, "the row was written in this transaction"
    for position, artifact_n in enumerate(numbers):
        tx.run(
            "INSERT INTO bulk_deletion_items VALUES (:n, :position, :artifact)",
            n=row[0],
            position=position,
            artifact=artifact_n,
        )


def chosen(tx: Tx, bulk_id: str) -> list[str]:
    """Return the ids of what the filter of a bulk deletion chose, in order."""
    rows = tx.rows(
        "SELECT a.id FROM bulk_deletions b JOIN bulk_deletion_items i ON i.bulk_n = b.n"
        " JOIN artifacts a ON a.n = i.artifact_n WHERE b.id = :id ORDER BY i.position",
        id=bulk_id,
    )
    return [str(row[0]) for row in rows]


def _drop_expired(tx: Tx, organization_id: str) -> None:
    rows = tx.rows(
        "SELECT n, requested_at FROM bulk_deletions WHERE organization_id = :organization ORDER BY n LIMIT :most",
        organization=organization_id,
        most=DROPPED_AT_ONCE,
    )
    for n, requested_at in rows:
        if requested_at < tx.now_micros - KEPT_MICROS:
            tx.run("DELETE FROM bulk_deletion_items WHERE bulk_n = :n", n=n)
            tx.run("DELETE FROM bulk_deletions WHERE n = :n", n=n)


def _check_room(tx: Tx, organization_id: str) -> None:
    last = tx.row(
        "SELECT n FROM bulk_deletions WHERE organization_id = :organization ORDER BY n DESC LIMIT 1 OFFSET :before",
        organization=organization_id,
        before=KEPT_MAX - 1,
    )
    if last is not None:
        raise Error(
            Kind.QUOTA_EXCEEDED,
            f"Your organization sent {KEPT_MAX} bulk deletions with an Idempotency-Key in 30 days, and as many are kept."
            " Send this one without a key, or delete more with each.",
            code="too_many_bulk_deletions",
        )

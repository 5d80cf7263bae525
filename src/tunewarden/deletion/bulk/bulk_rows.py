"""SQL on bulk deletions: the request that an Idempotency-Key belongs to, what its filter chose, and what was answered.

A member is known by its place: in the ids that were sent, or in what the filter chose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tunewarden.db import lists
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

    `has_more`: its filter chose more than its items. `has_plans`: it deletes a member only by the plan that is stored.
    """

    id: str
    organization_id: str
    requested_by: str
    idempotency_key: str
    request_sha256: str
    requested_at: int
    has_more: bool
    has_plans: bool = False


@dataclass(frozen=True, slots=True)
class SeenPlan:
    """The plan of a member, as its request named it; `reach` is how many others it names."""

    fingerprint: str
    reach: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a member was passed over, as the parts of an error."""

    kind: str
    code: str | None
    message: str


def find(tx: Tx, requested_by: str, idempotency_key: str) -> BulkDeletion | None:
    """Return the bulk deletion of a key with this Idempotency-Key, or None."""
    row = tx.row(
        "SELECT id, organization_id, request_sha256, requested_at, has_more, has_plans FROM bulk_deletions"
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
        has_plans=bool(row[5]),
    )


def insert(
    tx: Tx, bulk: BulkDeletion, numbers: Sequence[int], plans: Mapping[int, SeenPlan]
) -> None:
    """Insert a bulk deletion, the artifacts that its filter chose, and its members' plans.

    The organization's expired ones go.

    Raises Error(QUOTA_EXCEEDED) if it has too many.
    """
    _drop_expired(tx, bulk.organization_id)
    _check_room(tx, bulk.organization_id)
    tx.run(
        "INSERT INTO bulk_deletions (id, organization_id, requested_by, idempotency_key, request_sha256,"
        " requested_at, has_more, has_plans) VALUES (:id, :organization, :by, :key, :sha, :at, :more, :planned)",
        id=bulk.id,
        organization=bulk.organization_id,
        by=bulk.requested_by,
        key=bulk.idempotency_key,
        sha=bulk.request_sha256,
        at=bulk.requested_at,
        more=int(bulk.has_more),
        planned=int(bulk.has_plans),
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
    tx.run_each(
        "INSERT INTO bulk_deletion_members (bulk_n, position, plan, reach)"
        " VALUES (:n, :position, :fingerprint, :reach)",
        [{"n": row[0], "position": place, **asdict(one)} for place, one in plans.items()],
    )


def chosen(tx: Tx, bulk_id: str) -> list[str]:
    """Return the ids of what the filter of a bulk deletion chose, in order."""
    rows = tx.rows(
        "SELECT a.id FROM bulk_deletions b JOIN bulk_deletion_items i ON i.bulk_n = b.n"
        " JOIN artifacts a ON a.n = i.artifact_n WHERE b.id = :id ORDER BY i.position",
        id=bulk_id,
    )
    return [str(row[0]) for row in rows]


def plans(tx: Tx, bulk_id: str) -> dict[int, SeenPlan]:
    """Return the plans by which members are deleted, by their places."""
    rows = tx.rows(
        "SELECT m.position, m.plan, m.reach FROM bulk_deletions b JOIN bulk_deletion_members m ON m.bulk_n = b.n"
        " WHERE b.id = :id AND m.plan IS NOT NULL",
        id=bulk_id,
    )
    return {row[0]: SeenPlan(*row[1:]) for row in rows}


def refusals(tx: Tx, bulk_id: str, places: Sequence[int]) -> dict[int, Refusal]:
    """Return why those at these places, if so, were passed over."""
    found = {}
    for listed, values in lists.parts(places):
        for row in tx.rows(
            "SELECT m.position, m.refused_as, m.code, m.message FROM bulk_deletions b"
            " JOIN bulk_deletion_members m ON m.bulk_n = b.n"
            f" WHERE b.id = :id AND m.position IN ({listed}) AND m.refused_as IS NOT NULL",
            id=bulk_id,
            **values,
        ):
            found[row[0]] = Refusal(*row[1:])
    return found


def note_refusals(tx: Tx, bulk_id: str, refused: Mapping[int, Refusal]) -> None:
    """Store why members were passed over, by their places."""
    tx.run_each(
        "INSERT INTO bulk_deletion_members (bulk_n, position, refused_as, code, message)"
        " SELECT n, :position, :kind, :code, :message FROM bulk_deletions WHERE id = :id"
        " ON CONFLICT (bulk_n, position) DO UPDATE"
        " SET refused_as = excluded.refused_as, code = excluded.code, message = excluded.message",
        [{"id": bulk_id, "position": place, **asdict(one)} for place, one in refused.items()],
    )


def _drop_expired(tx: Tx, organization_id: str) -> None:
    rows = tx.rows(
        "SELECT n, requested_at FROM bulk_deletions WHERE organization_id = :organization ORDER BY n LIMIT :most",
        organization=organization_id,
        most=DROPPED_AT_ONCE,
    )
    for n, requested_at in rows:
        if requested_at < tx.now_micros - KEPT_MICROS:
            tx.run("DELETE FROM bulk_deletion_items WHERE bulk_n = :n", n=n)
            tx.run("DELETE FROM bulk_deletion_members WHERE bulk_n = :n", n=n)
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

"""SQL on endpoints: where an organization's events are sent, and how that went."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.db import cursors
from tunewarden.db.database import Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.ids import shown
from tunewarden.webhooks.event_types import WebhookEventType

COLUMNS = (
    "n, id, organization_id, sealed, event_types, created_at, updated_at, disabled_at, disabled_because, failures,"
    " failing_since, pending, delivered, failed, dropped"
)


class DisabledBecause(StrEnum):
    """Why nothing is sent to an endpoint."""

    OWNER = "owner"
    FAILING = "failing"
    GONE = "gone"  # it answered 410
    UNREADABLE = "unreadable"  # sealed under another key


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint. Times are microseconds since 1970; `pending` to `dropped` count its deliveries."""

    n: int
    id: str
    organization_id: str
    sealed: bytes
    event_types: tuple[str, ...]
    created_at: int
    updated_at: int
    disabled_at: int | None
    disabled_because: DisabledBecause | None
    failures: int
    failing_since: int | None
    pending: int
    delivered: int
    failed: int
    dropped: int


def insert(
    tx: Tx,
    endpoint_id: str,
    organization_id: str,
    sealed: bytes,
    event_types: Sequence[WebhookEventType],
) -> None:
    """Insert an endpoint, which is sent every event from the commit on."""
    tx.run(
        "INSERT INTO webhook_endpoints (id, organization_id, sealed, event_types, created_at, updated_at)"
        " VALUES (:id, :organization, :sealed, :types, :now, :now)",
        id=endpoint_id,
        organization=organization_id,
        sealed=sealed,
        types=" ".join(event_types),
        now=tx.now_micros,
    )


def find(tx: Tx, organization_id: str, endpoint_id: str) -> Endpoint:
    """Return an organization's endpoint. Raises Error(NOT_FOUND)."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM webhook_endpoints WHERE id = :id AND organization_id = :organization",
        id=endpoint_id,
        organization=organization_id,
    )
    if row is None:
        raise missing(endpoint_id)
    return _of_row(row)


def by_n(tx: Tx, n: int) -> Endpoint | None:
    """Return the endpoint with this number, or None if it was deleted."""
    row = tx.row(f"SELECT {COLUMNS} FROM webhook_endpoints WHERE n = :n", n=n)
    return _of_row(row) if row else None


def of(tx: Tx, organization_id: str) -> list[Endpoint]:
    """Return an organization's endpoints, oldest first; they are few."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM webhook_endpoints WHERE organization_id = :organization ORDER BY n",
        organization=organization_id,
    )
    return [_of_row(row) for row in rows]


def page(tx: Tx, organization_id: str, *, after: str | None, limit: int) -> list[Endpoint]:
    """Return an organization's endpoints, oldest first. Raises Error(INVALID) for a cursor that is none."""
    first = cursors.position(
        tx.row,
        "SELECT n FROM webhook_endpoints WHERE id = :after AND organization_id = :organization",
        after=after,
        first=cursors.BEFORE_ALL,
        organization=organization_id,
    )
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM webhook_endpoints WHERE organization_id = :organization AND n > :first"
        " ORDER BY n LIMIT :limit",
        organization=organization_id,
        first=first,
        limit=limit,
    )
    return [_of_row(row) for row in rows]


def to_ask(tx: Tx, organization_id: str) -> list[tuple[int, tuple[str, ...], int]]:
    """Return number, event types and pending deliveries of an organization's endpoints that are enabled."""
    rows = tx.rows(
        "SELECT n, event_types, pending FROM webhook_endpoints"
        " WHERE organization_id = :organization AND disabled_at IS NULL ORDER BY n",
        organization=organization_id,
    )
    return [(int(n), tuple(types.split()), int(pending)) for n, types, pending in rows]


def pending_of(tx: Tx, organization_id: str) -> int:
    """Return how many deliveries of an organization are pending."""
    row = tx.row(
        "SELECT COALESCE(SUM(pending), 0) FROM webhook_endpoints WHERE organization_id = :organization",
        organization=organization_id,
    )
    return int(row[0]) if row else 0


def pending(tx: Tx) -> int:
    """Return how many deliveries of all organizations are pending."""
    row = tx.row("SELECT COALESCE(SUM(pending), 0) FROM webhook_endpoints")
    return int(row[0]) if row else 0


def that_wait(tx: Tx, after_n: int, *, limit: int) -> list[Endpoint]:
    """Return endpoints after number `after_n` that something may be sent to now, in order."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM webhook_endpoints"
        " WHERE pending > 0 AND disabled_at IS NULL AND n > :after AND retry_at <= :now ORDER BY n LIMIT :limit",
        after=after_n,
        now=tx.now_micros,
        limit=limit,
    )
    return [_of_row(row) for row in rows]


def numbers_after(tx: Tx, n: int, *, limit: int) -> list[int]:
    """Return the numbers of endpoints that follow endpoint `n`, of all organizations, in order."""
    rows = tx.rows(
        "SELECT n FROM webhook_endpoints WHERE n > :after ORDER BY n LIMIT :limit",
        after=n,
        limit=limit,
    )
    return [int(row[0]) for row in rows]


def change(tx: Tx, n: int, sealed: bytes, event_types: Sequence[str]) -> None:
    """Change what an Owner set up."""
    tx.run(
        "UPDATE webhook_endpoints SET sealed = :sealed, event_types = :types, updated_at = :now WHERE n = :n",
        n=n,
        sealed=sealed,
        types=" ".join(event_types),
        now=tx.now_micros,
    )


def sealed_after(tx: Tx, n: int) -> list[tuple[int, str, bytes]]:
    """Return number, id and sealed details of the next endpoints of any organization; none after the last."""
    rows = tx.rows(
        "SELECT n, id, sealed FROM webhook_endpoints WHERE n > :n ORDER BY n LIMIT 100", n=n
    )
    return [(int(n), str(endpoint_id), bytes(sealed)) for n, endpoint_id, sealed in rows]


def reseal(tx: Tx, n: int, sealed: bytes) -> None:
    """Replace sealed details by the same ones under another key."""
    tx.run("UPDATE webhook_endpoints SET sealed = :sealed WHERE n = :n", n=n, sealed=sealed)


def disable(tx: Tx, n: int, because: DisabledBecause) -> bool:
    """Disable an endpoint; False if it is already. What is pending stays, and is sent if it is enabled in time."""
    return bool(
        tx.run(
            "UPDATE webhook_endpoints SET disabled_at = :now, disabled_because = :because"
            " WHERE n = :n AND disabled_at IS NULL",
            n=n,
            because=because.value,
            now=tx.now_micros,
        )
    )


def enable(tx: Tx, n: int) -> bool:
    """Enable an endpoint as if nothing had failed; False if it was not disabled."""
    return bool(
        tx.run(
            "UPDATE webhook_endpoints SET disabled_at = NULL, disabled_because = NULL, failures = 0,"
            " failing_since = NULL, retry_at = 0 WHERE n = :n AND disabled_at IS NOT NULL",
            n=n,
        )
    )


def delete(tx: Tx, n: int) -> None:
    """Delete an endpoint that has no deliveries any more."""
    tx.run("DELETE FROM webhook_endpoints WHERE n = :n", n=n)


def queued(tx: Tx, n: int) -> None:
    """Count one more pending delivery."""
    tx.run("UPDATE webhook_endpoints SET pending = pending + 1 WHERE n = :n", n=n)


def dropped(tx: Tx, n: int) -> None:
    """Count a pending delivery that was dropped."""
    tx.run(
        "UPDATE webhook_endpoints SET pending = pending - 1, dropped = dropped + 1 WHERE n = :n",
        n=n,
    )


def ended(tx: Tx, n: int, *, is_delivered: bool) -> None:
    """Count a pending delivery that has ended."""
    tx.run(
        "UPDATE webhook_endpoints SET pending = pending - 1, delivered = delivered + :delivered,"
        " failed = failed + 1 - :delivered WHERE n = :n",
        n=n,
        delivered=int(is_delivered),
    )


def succeeded(tx: Tx, n: int) -> None:
    """Note that an attempt succeeded."""
    tx.run(
        "UPDATE webhook_endpoints SET failures = 0, failing_since = NULL, retry_at = 0"
        " WHERE n = :n AND failures > 0",
        n=n,
    )


def failed(tx: Tx, n: int, *, retry_at: int) -> None:
    """Note that an attempt failed, and when the next one may be made: not before an earlier failure said."""
    tx.run(
        "UPDATE webhook_endpoints SET failures = failures + 1,"
        " failing_since = COALESCE(failing_since, :now),"
        " retry_at = CASE WHEN retry_at > :retry THEN retry_at ELSE :retry END WHERE n = :n",
        n=n,
        retry=retry_at,
        now=tx.now_micros,
    )


def missing(endpoint_id: str) -> Error:
    """Return the error for an endpoint that is unknown or foreign (I9)."""
    return Error(
        Kind.NOT_FOUND,
        f"The webhook endpoint '{shown(endpoint_id)}' does not exist.",
        param="webhook_endpoint_id",
        code="webhook_endpoint_not_found",
    )


def _of_row(row: Row) -> Endpoint:
    values = list(row)
    values[4] = tuple(values[4].split())
    values[8] = None if values[8] is None else DisabledBecause(values[8])
    return Endpoint(*values)

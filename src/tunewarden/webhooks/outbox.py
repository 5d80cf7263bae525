"""The outbox: events that wait to be sent, written in the transaction of the act, so that neither exists alone.

It is bounded: WAITING_MICROS and PENDING_MAX an organization. What ended stays for a while, as the log of deliveries.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.db import cursors
from tunewarden.db.database import Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint, shown, token
from tunewarden.metrics import families, recording
from tunewarden.webhooks import endpoint_rows
from tunewarden.webhooks.event_types import WebhookEventType

WAITING_MICROS = 3 * 86_400 * 1_000_000
PENDING_MAX = 10_000
# Of what ended, for each endpoint.
LOGGED_MAX = 1000
# Of one transaction: deletions need the same lock.
SWEPT_MAX = 500
COLUMNS = (
    "n, id, endpoint_n, organization_id, event_id, event_type, data, created_at, state, due_at, attempts,"
    " attempted_at, status, error, milliseconds"
)


class DeliveryState(StrEnum):
    """What became of an event at one endpoint."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


# The error of what was not sent in time. Others: `attempts.Failure`.
EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event for one endpoint. Times are microseconds since 1970; `status` to `milliseconds` are the last attempt's."""

    n: int
    id: str
    endpoint_n: int
    organization_id: str
    event_id: str
    event_type: str
    data: str
    created_at: int
    state: DeliveryState
    due_at: int
    attempts: int
    attempted_at: int | None
    status: int | None
    error: str | None
    milliseconds: int | None


def publish(
    tx: Tx, organization_id: str, event_type: WebhookEventType, object_id: str, **related_ids: str
) -> None:
    """Queue an event for each of the organization's endpoints that asks for it, in the caller's transaction.

    `related_ids` become further members of `data`. Without endpoints it is one look-up.
    """
    publish_each(tx, organization_id, event_type, [{"id": object_id, **related_ids}])


def publish_each(
    tx: Tx,
    organization_id: str,
    event_type: WebhookEventType,
    happened: Iterable[Mapping[str, str]],
) -> None:
    """Queue several events of one type, in this order; as `publish` for one. Each is the `data` of an event."""
    asking = [
        n for n, types, _ in endpoint_rows.to_ask(tx, organization_id) if event_type.value in types
    ]
    for data in happened if asking else ():
        _queue(tx, organization_id, event_type, json.dumps(data, sort_keys=True), asking)


def _queue(
    tx: Tx, organization_id: str, event_type: WebhookEventType, data: str, asking: Sequence[int]
) -> None:
    event_id = new_event_id(tx)
    _make_room(tx, organization_id, len(asking))
    for n in asking:
        tx.run(
            "INSERT INTO webhook_deliveries (id, endpoint_n, organization_id, event_id, event_type, data,"
            " created_at, state, queued_at, due_at)"
            " VALUES (:id, :endpoint, :organization, :event, :type, :data, :now, 'pending', :now, :now)",
            id=mint(Prefix.WEBHOOK_DELIVERY),
            endpoint=n,
            organization=organization_id,
            event=event_id,
            type=event_type.value,
            data=data,
            now=tx.now_micros,
        )
        endpoint_rows.queued(tx, n)


def new_event_id(tx: Tx) -> str:
    """Return a new event's id. Ids of later transactions sort after it."""
    return f"{Prefix.WEBHOOK_EVENT}_{tx.now_micros:013x}{token(11)}"


def _make_room(tx: Tx, organization_id: str, count: int) -> None:
    """Drop the oldest of what is pending beyond the bound."""
    excess = endpoint_rows.pending_of(tx, organization_id) + count - PENDING_MAX
    if excess <= 0:
        return
    oldest = tx.rows(
        "SELECT n, endpoint_n FROM webhook_deliveries WHERE organization_id = :organization"
        " AND state = 'pending' ORDER BY queued_at, n LIMIT :limit",
        organization=organization_id,
        limit=excess,
    )
    for n, endpoint_n in oldest:
        tx.run("DELETE FROM webhook_deliveries WHERE n = :n", n=n)
        endpoint_rows.dropped(tx, endpoint_n)
    recording.count(families.WEBHOOKS, "dropped", by=len(oldest))


def due(tx: Tx, endpoint_n: int, *, limit: int) -> list[Delivery]:
    """Return what is to be sent to an endpoint now, in order."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM webhook_deliveries WHERE endpoint_n = :endpoint AND state = 'pending'"
        " AND due_at <= :now ORDER BY due_at, n LIMIT :limit",
        endpoint=endpoint_n,
        now=tx.now_micros,
        limit=limit,
    )
    return [_of_row(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Attempted:
    """An attempt: when it began, the answer's status or the class of the error, and how long it took.

    `retry_after_seconds`: when a receiver that is busy asks to be tried again; it is not stored.
    """

    at: int
    status: int | None
    error: str | None
    milliseconds: int
    retry_after_seconds: int | None = None


def attempted(tx: Tx, delivery: Delivery, attempt: Attempted, *, retry_at: int | None) -> bool:
    """Record an attempt, after which the delivery is pending until `retry_at`, or has ended; False if it is gone."""
    is_delivered = attempt.error is None
    state = DeliveryState.DELIVERED if is_delivered else DeliveryState.FAILED
    is_ours = tx.run(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, attempted_at = :at, status = :status,"
        " error = :error, milliseconds = :milliseconds, due_at = COALESCE(:retry, due_at), state = :state"
        " WHERE n = :n AND state = 'pending'",
        n=delivery.n,
        at=attempt.at,
        status=attempt.status,
        error=attempt.error,
        milliseconds=attempt.milliseconds,
        retry=retry_at,
        state=(state if retry_at is None else DeliveryState.PENDING).value,
    )
    if is_ours and retry_at is None:
        endpoint_rows.ended(tx, delivery.endpoint_n, is_delivered=is_delivered)
    return bool(is_ours)


def has_expired(tx: Tx) -> bool:
    """Return whether something has waited for too long."""
    row = tx.row(
        "SELECT 1 FROM webhook_deliveries WHERE state = 'pending' AND queued_at < :before LIMIT 1",
        before=tx.now_micros - WAITING_MICROS,
    )
    return row is not None


def is_to_be_cut(tx: Tx, endpoint_n: int) -> bool:
    """Return whether an endpoint's log has more than LOGGED_MAX deliveries."""
    row = tx.row(
        "SELECT 1 FROM webhook_deliveries WHERE endpoint_n = :endpoint AND state <> 'pending'"
        " ORDER BY n DESC LIMIT 1 OFFSET :kept",
        endpoint=endpoint_n,
        kept=LOGGED_MAX,
    )
    return row is not None


def expire(tx: Tx) -> int:
    """End what has waited for too long; return how many, at most SWEPT_MAX."""
    rows = tx.rows(
        "SELECT n, endpoint_n FROM webhook_deliveries WHERE state = 'pending' AND queued_at < :before"
        " ORDER BY queued_at LIMIT :limit",
        before=tx.now_micros - WAITING_MICROS,
        limit=SWEPT_MAX,
    )
    for n, endpoint_n in rows:
        tx.run(
            "UPDATE webhook_deliveries SET state = 'failed', error = :error WHERE n = :n",
            n=n,
            error=EXPIRED,
        )
        endpoint_rows.ended(tx, endpoint_n, is_delivered=False)
    return len(rows)


def prune(tx: Tx, endpoint_n: int) -> int:
    """Delete what is beyond the newest LOGGED_MAX of an endpoint's log; return how many, at most SWEPT_MAX."""
    return tx.run(
        "DELETE FROM webhook_deliveries WHERE n IN (SELECT n FROM webhook_deliveries"
        " WHERE endpoint_n = :endpoint AND state <> 'pending' AND n <= (SELECT n FROM webhook_deliveries"
        " WHERE endpoint_n = :endpoint AND state <> 'pending' ORDER BY n DESC LIMIT 1 OFFSET :kept)"
        " ORDER BY n LIMIT :limit)",
        endpoint=endpoint_n,
        kept=LOGGED_MAX,
        limit=SWEPT_MAX,
    )


def log(tx: Tx, endpoint_n: int, delivery: Delivery, attempt: Attempted) -> None:
    """Insert what was sent apart from the outbox, as it ended: a test."""
    tx.run(
        "INSERT INTO webhook_deliveries (id, endpoint_n, organization_id, event_id, event_type, data, created_at,"
        " state, queued_at, due_at, attempts, attempted_at, status, error, milliseconds)"
        " VALUES (:id, :endpoint, :organization, :event, :type, :data, :created, :state, :created, :created, 1, :at,"
        " :status, :error, :milliseconds)",
        id=delivery.id,
        endpoint=endpoint_n,
        organization=delivery.organization_id,
        event=delivery.event_id,
        type=delivery.event_type,
        data=delivery.data,
        created=delivery.created_at,
        state=(DeliveryState.FAILED if attempt.error else DeliveryState.DELIVERED).value,
        at=attempt.at,
        status=attempt.status,
        error=attempt.error,
        milliseconds=attempt.milliseconds,
    )


def find(tx: Tx, endpoint_n: int, delivery_id: str) -> Delivery:
    """Return a delivery to an endpoint. Raises Error(NOT_FOUND)."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM webhook_deliveries WHERE id = :id AND endpoint_n = :endpoint",
        id=delivery_id,
        endpoint=endpoint_n,
    )
    if row is None:
        raise Error(
            Kind.NOT_FOUND,
            f"The delivery '{shown(delivery_id)}' does not exist, or is not kept any more.",
            param="delivery_id",
            code="webhook_delivery_not_found",
        )
    return _of_row(row)


def page(
    tx: Tx, endpoint_n: int, *, state: DeliveryState | None, after: str | None, limit: int
) -> list[Delivery]:
    """Return deliveries to an endpoint, newest first. Raises Error(INVALID) for a cursor that is none."""
    before = cursors.position(
        tx.row,
        "SELECT n FROM webhook_deliveries WHERE id = :after AND endpoint_n = :endpoint",
        after=after,
        first=cursors.AFTER_ALL,
        may_be_gone=Prefix.WEBHOOK_DELIVERY,
        endpoint=endpoint_n,
    )
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM webhook_deliveries WHERE endpoint_n = :endpoint AND n < :before"
        " AND state = COALESCE(:state, state) ORDER BY n DESC LIMIT :limit",
        endpoint=endpoint_n,
        before=before,
        state=None if state is None else state.value,
        limit=limit,
    )
    return [_of_row(row) for row in rows]


def queue_again(tx: Tx, delivery: Delivery) -> None:
    """Send a delivery again, and try for as long as a new one; a pending one at once."""
    if delivery.state is not DeliveryState.PENDING:
        _make_room(tx, delivery.organization_id, 1)
        endpoint_rows.queued(tx, delivery.endpoint_n)
    tx.run(
        "UPDATE webhook_deliveries SET state = 'pending', queued_at = :now, due_at = :now, attempts = 0"
        " WHERE n = :n",
        n=delivery.n,
        now=tx.now_micros,
    )


def forget(tx: Tx, endpoint_n: int) -> None:
    """Delete all deliveries to an endpoint."""
    tx.run("DELETE FROM webhook_deliveries WHERE endpoint_n = :n", n=endpoint_n)


def _of_row(row: Row) -> Delivery:
    values = list(row)
    values[8] = DeliveryState(values[8])
    return Delivery(*values)

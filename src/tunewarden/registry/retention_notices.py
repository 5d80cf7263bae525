"""SQL on notices: which model a retention rule will delete, and not before when.

A notice stands while the rule would delete its model: what stops that withdraws it, and the days begin anew then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.db import lists
from tunewarden.db.database import Database, Tx
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType


@dataclass(frozen=True, slots=True)
class Notice:
    """When a model is deleted, in microseconds, and the id of the rule that will do it."""

    due_at: int
    rule_id: str


def due_of(database: Database, model_n: int, rule_n: int, version: int) -> int | None:
    """Return when a rule in this version deletes a model, as it was announced; None if it was not."""
    row = database.peek(_DUE, model=model_n, rule=rule_n, version=version)
    return int(row[0]) if row else None


def due_now(tx: Tx, model_n: int, rule_n: int, version: int) -> int | None:
    """Return what `due_of` does, as this transaction reads it."""
    row = tx.row(_DUE, model=model_n, rule=rule_n, version=version)
    return int(row[0]) if row else None


_DUE = (
    "SELECT due_at FROM retention_notices WHERE model_n = :model AND rule_n = :rule"
    " AND rule_version = :version"
)


def next_of(database: Database, model_n: int) -> Notice | None:
    """Return the notice that stands of a model, the one that is due first."""
    row = database.peek(
        "SELECT t.due_at, r.id FROM retention_notices t JOIN retention_rules r ON r.n = t.rule_n"
        " AND r.version = t.rule_version AND r.is_enabled = 1 WHERE t.model_n = :model"
        " ORDER BY t.due_at LIMIT 1",
        model=model_n,
    )
    return Notice(int(row[0]), str(row[1])) if row else None


def due_first(tx: Tx, organization_id: str, *, limit: int) -> list[tuple[str, Notice]]:
    """Return the ids of an organization's models that rules will delete, with their notices: the first due first."""
    rows = tx.rows(
        "SELECT a.id, t.due_at, r.id FROM retention_rules r JOIN retention_notices t ON t.rule_n = r.n"
        " AND t.rule_version = r.version JOIN artifacts a ON a.n = t.model_n"
        " WHERE r.organization_id = :organization AND r.is_enabled = 1 ORDER BY t.due_at, a.n LIMIT :limit",
        organization=organization_id,
        limit=limit,
    )
    return [(str(row[0]), Notice(int(row[1]), str(row[2]))) for row in rows]


def announce(  # noqa: PLR0917  each is of another kind
    tx: Tx,
    organization_id: str,
    model_id: str,
    model_n: int,
    rule_id: str,
    rule_n: int,
    version: int,
    due_at: int,
) -> None:
    """Record that a rule will delete a model, and not before `due_at`: the one place where that becomes known."""
    tx.run(
        "INSERT INTO retention_notices VALUES (:model, :rule, :version, :now, :due)"
        " ON CONFLICT (model_n, rule_n) DO UPDATE SET rule_version = excluded.rule_version,"
        " noticed_at = excluded.noticed_at, due_at = excluded.due_at",
        model=model_n,
        rule=rule_n,
        version=version,
        now=tx.now_micros,
        due=due_at,
    )
    audit.record(
        tx,
        audit.EventType.RETENTION_UPCOMING,
        organization_id=organization_id,
        actor=audit.SERVER,
        resource_id=model_id,
        rule=rule_id,
        due_at=due_at // 1_000_000,
    )
    outbox.publish(
        tx, organization_id, WebhookEventType.RETENTION_UPCOMING, model_id, rule_id=rule_id
    )


def withdraw(tx: Tx, model_n: int, rule_n: int) -> None:
    """Withdraw the notice of a model: the rule would not delete it any more."""
    tx.run(
        "DELETE FROM retention_notices WHERE model_n = :model AND rule_n = :rule",
        model=model_n,
        rule=rule_n,
    )


def forget_rule(tx: Tx, rule_n: int) -> None:
    """Withdraw all notices of a rule."""
    tx.run("DELETE FROM retention_notices WHERE rule_n = :rule", rule=rule_n)


def forget_models(tx: Tx, numbers: Sequence[int]) -> None:
    """Remove the notices of deleted models; no-op for numbers of other artifacts."""
    for listed, values in lists.parts(numbers):
        tx.run(f"DELETE FROM retention_notices WHERE model_n IN ({listed})", **values)

"""Audit events, written in the transaction that they record, so that neither exists alone.

Event types are only ever added: docs/reference/audit-events.md. Events are never changed, and deleted by their
organization's retention period only; triggers hold that. Refused acts: `refusals`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from tunewarden.clock import from_micros, iso
from tunewarden.db.database import Database, Tx
from tunewarden.ids import Prefix, mint
from tunewarden_receipts.canonical import canonical


class EventType(StrEnum):
    """What happened. Deletes use OpenAI's own `resource.deleted`, so that strict clients parse them."""

    ORGANIZATION_CREATED = "organization.created"
    PROJECT_CREATED = "project.created"
    PROJECT_UPDATED = "project.updated"
    PROJECT_ARCHIVED = "project.archived"
    USER_ADDED = "user.added"
    USER_UPDATED = "user.updated"
    USER_DELETED = "user.deleted"
    # A person's role in a project.
    ROLE_ASSIGNED = "role.assignment.created"
    ROLE_UNASSIGNED = "role.assignment.deleted"
    INVITE_SENT = "invite.sent"
    INVITE_ACCEPTED = "invite.accepted"
    INVITE_DELETED = "invite.deleted"
    # Of a project on a base, and of an API key.
    RATE_LIMIT_UPDATED = "rate_limit.updated"
    QUOTA_UPDATED = "project.quota.updated"
    API_KEY_CREATED = "api_key.created"
    API_KEY_UPDATED = "api_key.updated"
    API_KEY_REVOKED = "api_key.deleted"
    # Of the console.
    LOGIN_LINK_CREATED = "login.link.created"
    LOGIN_SUCCEEDED = "login.succeeded"
    LOGOUT_SUCCEEDED = "logout.succeeded"
    ADMIN_KEY_CREATED = "admin_api_key.created"
    ADMIN_KEY_REVOKED = "admin_api_key.deleted"
    SERVICE_ACCOUNT_CREATED = "service_account.created"
    SERVICE_ACCOUNT_UPDATED = "service_account.updated"
    SERVICE_ACCOUNT_DELETED = "service_account.deleted"
    BASE_ADDED = "base.added"
    BASE_NAMED = "base.named"
    REPLICA_ADDED = "base.replica.added"
    REPLICA_LEAVING = "base.replica.leaving"
    REPLICA_REMOVED = "base.replica.removed"
    MODEL_IMPORTED = "model.imported"
    MODEL_IMPORT_REFUSED = "model.import_refused"
    MODEL_TRAINED = "model.trained"
    FILE_CREATED = "file.created"
    FILE_REFUSED = "file.refused"
    FILES_SEARCHED = "file.searched"
    UPLOAD_CREATED = "upload.created"
    UPLOAD_PART_ADDED = "upload.part_added"
    UPLOAD_COMPLETED = "upload.completed"
    UPLOAD_CANCELLED = "upload.cancelled"
    UPLOAD_EXPIRED = "upload.expired"
    ALIAS_CREATED = "alias.created"
    ALIAS_SWITCHED = "alias.updated"
    ALIAS_DELETED = "alias.deleted"
    HOLD_PLACED = "hold.placed"
    HOLD_LIFTED = "hold.lifted"
    MODEL_ARCHIVED = "model.archived"
    MODEL_UNARCHIVED = "model.unarchived"
    MODEL_PROTECTED = "model.protected"
    MODEL_UNPROTECTED = "model.unprotected"
    MODEL_DESCRIBED = "model.metadata_updated"
    MODEL_EXPORTED = "model.exported"
    DELETION_SETTINGS_UPDATED = "deletion_settings.updated"
    DELETION_REQUESTED = "deletion.requested"
    DELETION_REFUSED = "deletion.refused"
    CASE_REQUESTED = "deletion.case.requested"
    CASE_FINISHED = "deletion.case.finished"
    RESOURCE_DELETED = "resource.deleted"
    BLOBS_ERASED = "blobs.erased"
    KEYRING_ADOPTED = "keyring.adopted"
    LOG_KEY_ROTATED = "log.key.rotated"
    JOB_CREATED = "fine_tuning.job.created"
    JOB_CANCELLED = "fine_tuning.job.cancelled"
    JOB_PAUSED = "fine_tuning.job.paused"
    JOB_RESUMED = "fine_tuning.job.resumed"
    JOB_FAILED = "fine_tuning.job.failed"
    EXPIRY_PAUSED = "expiry.paused"
    EXPIRY_RESUMED = "expiry.resumed"
    RETENTION_RULE_CREATED = "retention.rule.created"
    RETENTION_RULE_UPDATED = "retention.rule.updated"
    RETENTION_RULE_DELETED = "retention.rule.deleted"
    RETENTION_RULE_RUN = "retention.rule.run"
    RETENTION_UPCOMING = "retention.upcoming"
    RETENTION_PAUSED = "retention.paused"
    RETENTION_RESUMED = "retention.resumed"
    AUDIT_EXPIRED = "audit_log.expired"
    AUDIT_RESTORED = "audit_log.restored"
    AUDIT_RETENTION_UPDATED = "audit_log.retention.updated"
    REQUEST_REFUSED = "request.refused"
    REFUSALS_COUNTED = "request.refusals_counted"
    WEBHOOK_CREATED = "webhook_endpoint.created"
    WEBHOOK_UPDATED = "webhook_endpoint.updated"
    WEBHOOK_ROTATED = "webhook_endpoint.secret_rotated"
    WEBHOOK_ENABLED = "webhook_endpoint.enabled"
    WEBHOOK_DISABLED = "webhook_endpoint.disabled"
    WEBHOOK_TESTED = "webhook_endpoint.tested"
    WEBHOOK_DELETED = "webhook_endpoint.deleted"
    WEBHOOK_REDELIVERED = "webhook_delivery.requested"
    CHECKPOINT_SHARED = "checkpoint.permission.created"
    CHECKPOINT_UNSHARED = "checkpoint.permission.deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who did it: ids only, no personal data. The server itself has neither key nor user.

    `project_id` is the project of the key; of what is done to a project, that one.
    """

    key_id: str | None
    user_id: str | None
    project_id: str | None
    request_id: str | None

    def about(self, project_id: str | None) -> "Actor":
        """Return the same actor, for an event about what is done to this project."""
        return replace(self, project_id=project_id)


SERVER = Actor(key_id=None, user_id=None, project_id=None, request_id=None)


@dataclass(frozen=True, slots=True)
class Act:
    """What an event records of an act; `details` must be JSON and hold no secret."""

    organization_id: str
    actor: Actor
    resource_id: str
    details: Mapping[str, object]


# A client may send an API key in place of an id: never record it.
_KEY = re.compile(r"sk-[A-Za-z0-9_-]{8,}")


def record(
    tx: Tx,
    event: EventType,
    *,
    organization_id: str,
    actor: Actor,
    resource_id: str,
    **details: object,
) -> None:
    """Write one event in the caller's transaction. `details` must be JSON and hold no secret."""
    record_each(tx, event, [Act(organization_id, actor, resource_id, details)])


def record_each(tx: Tx, event: EventType, acts: Iterable[Act]) -> None:
    """Write an event for each of several acts of one kind, in this order; as `record` for one."""
    now = tx.now_micros
    tx.run_each(
        "INSERT INTO audit_events (id, type, effective_at, organization_id, project_id, actor_key_id,"
        " actor_user_id, resource_id, request_id, details)"
        " VALUES (:id, :type, :now, :organization, :project, :key, :user, :resource, :request, :details)",
        [
            {
                "id": mint(Prefix.AUDIT_EVENT),
                "type": event.value,
                "now": now,
                "organization": one.organization_id,
                "project": one.actor.project_id,
                "key": one.actor.key_id,
                "user": one.actor.user_id,
                "resource": _KEY.sub("sk-…", one.resource_id),
                "request": one.actor.request_id,
                "details": _KEY.sub("sk-…", json.dumps(one.details, sort_keys=True)),
            }
            for one in acts
        ],
    )


COLUMNS = (
    "n, id, type, effective_at, organization_id, project_id, actor_key_id, actor_user_id, resource_id,"
    " request_id, details"
)


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is stored: `n` is its place among the events of all organizations, `details` is JSON."""

    n: int
    id: str
    type: str
    effective_at: int  # microseconds
    organization_id: str
    project_id: str | None
    actor_key_id: str | None
    actor_user_id: str | None
    resource_id: str
    request_id: str | None
    details: str

    def line(self) -> bytes:
        """Return the event as exports have it and digests hash it: canonical JSON, without a newline.

        Raises ValueError if the stored details are not JSON.
        """
        return canonical(
            {
                "actor_key_id": self.actor_key_id,
                "actor_user_id": self.actor_user_id,
                "details": json.loads(self.details),
                "effective_at": iso(from_micros(self.effective_at)),
                "id": self.id,
                "organization_id": self.organization_id,
                "project_id": self.project_id,
                "request_id": self.request_id,
                "resource_id": self.resource_id,
                "type": self.type,
            }
        )


def after(tx: Tx, n: int, limit: int) -> list[Event]:
    """Return up to `limit` events of all organizations that follow event `n`, oldest first."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM audit_events WHERE n > :n ORDER BY n LIMIT :limit", n=n, limit=limit
    )
    return [Event(*row) for row in rows]


def within(tx: Tx, first_n: int, last_n: int) -> list[Event]:
    """Return the events of all organizations from `first_n` to `last_n`, oldest first."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM audit_events WHERE n >= :first AND n <= :last ORDER BY n",
        first=first_n,
        last=last_n,
    )
    return [Event(*row) for row in rows]


def oldest_after(database: Database, n: int) -> int | None:
    """Return when the first event after event `n` was recorded, in microseconds; None if there is none."""
    row = database.peek(
        "SELECT effective_at FROM audit_events WHERE n > :n ORDER BY n LIMIT 1", n=n
    )
    return None if row is None else int(row[0])


def first_older(tx: Tx, n: int, before: int) -> tuple[str, str] | None:
    """Return organization and id of the first event after event `n` that is older than `before` (microseconds)."""
    row = tx.row(
        "SELECT organization_id, id FROM audit_events WHERE n > :n AND effective_at < :before"
        " ORDER BY n LIMIT 1",
        n=n,
        before=before,
    )
    return None if row is None else (str(row[0]), str(row[1]))


def count_after(tx: Tx, n: int) -> int:
    """Return how many events follow event `n`."""
    row = tx.row("SELECT COUNT(*) FROM audit_events WHERE n > :n", n=n)
    return int(row[0]) if row else 0


def of_type_after(tx: Tx, event: EventType, n: int) -> list[Event]:
    """Return all organizations' events of a type that follow event `n`, oldest first."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM audit_events WHERE n > :n AND type = :type ORDER BY n",
        n=n,
        type=event.value,
    )
    return [Event(*row) for row in rows]


def numbers(tx: Tx, first_n: int, last_n: int, limit: int) -> list[tuple[int, str]]:
    """Return (number, organization) of up to `limit` events from `first_n` to `last_n`, oldest first."""
    rows = tx.rows(
        "SELECT n, organization_id FROM audit_events WHERE n >= :first AND n <= :last ORDER BY n LIMIT :limit",
        first=first_n,
        last=last_n,
        limit=limit,
    )
    return [(int(n), str(organization_id)) for n, organization_id in rows]


def delete(tx: Tx, n: int) -> None:
    """Delete an event, which the database refuses unless it is in a part that has expired. For `retention` only."""
    tx.run("DELETE FROM audit_events WHERE n = :n", n=n)

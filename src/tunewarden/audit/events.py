"""Audit events, written in the transaction that they record, so that neither exists alone.

Event types are only ever added. Refused attempts are recorded too, in a separate
transaction, because their own was rolled back.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint


class EventType(StrEnum):
    """What happened. Deletes use OpenAI's own `resource.deleted`, so that strict clients parse them."""

    ORGANIZATION_CREATED = "organization.created"
    PROJECT_CREATED = "project.created"
    USER_ADDED = "user.added"
    API_KEY_CREATED = "api_key.created"
    API_KEY_REVOKED = "api_key.deleted"
    ADMIN_KEY_CREATED = "admin_api_key.created"
    BASE_ADDED = "base.added"
    REPLICA_ADDED = "base.replica.added"
    REPLICA_REMOVED = "base.replica.removed"
    MODEL_IMPORTED = "model.imported"
    MODEL_IMPORT_REFUSED = "model.import_refused"
    MODEL_TRAINED = "model.trained"
    FILE_CREATED = "file.created"
    FILE_REFUSED = "file.refused"
    UPLOAD_CREATED = "upload.created"
    UPLOAD_COMPLETED = "upload.completed"
    UPLOAD_CANCELLED = "upload.cancelled"
    UPLOAD_EXPIRED = "upload.expired"
    DELETION_REQUESTED = "deletion.requested"
    DELETION_REFUSED = "deletion.refused"
    RESOURCE_DELETED = "resource.deleted"
    BLOBS_ERASED = "blobs.erased"
    KEYRING_ADOPTED = "keyring.adopted"
    JOB_CREATED = "fine_tuning.job.created"
    JOB_CANCELLED = "fine_tuning.job.cancelled"
    JOB_PAUSED = "fine_tuning.job.paused"
    JOB_RESUMED = "fine_tuning.job.resumed"
    CHECKPOINT_SHARED = "checkpoint.permission.created"
    CHECKPOINT_UNSHARED = "checkpoint.permission.deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who did it: ids only, no personal data. The server itself has neither key nor user."""

    key_id: str | None
    user_id: str | None
    project_id: str | None
    request_id: str | None


SERVER = Actor(key_id=None, user_id=None, project_id=None, request_id=None)


# A client may send an API key in place of an id: never record it.
_KEY = re.compile(r"sk-[A-Za-z0-9_-]{8,}")


@contextmanager
def unless_full() -> Iterator[None]:
    """Skip the block's write if the disk is below its floor: refusals are then not recorded.

    Otherwise a refused client could fill the rest of the disk, one event at a time. # I20
    """
    try:
        yield
    except Error as error:
        if error.kind is not Kind.STORAGE_FULL:
            raise


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
    tx.run(
        "INSERT INTO audit_events (id, type, effective_at, organization_id, project_id, actor_key_id,"
        " actor_user_id, resource_id, request_id, details)"
        " VALUES (:id, :type, :now, :organization, :project, :key, :user, :resource, :request, :details)",
        id=mint(Prefix.AUDIT_EVENT),
        type=event.value,
        now=tx.now_micros,
        organization=organization_id,
        project=actor.project_id,
        key=actor.key_id,
        user=actor.user_id,
        resource=_KEY.sub("sk-…", resource_id),
        request=actor.request_id,
        details=_KEY.sub("sk-…", json.dumps(details, sort_keys=True)),
    )

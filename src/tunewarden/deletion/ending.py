"""D8: what the second transaction of deletions writes, for all of them by one statement each."""

from collections.abc import Sequence
from itertools import groupby

from tunewarden import audit
from tunewarden.audit import Act, Actor
from tunewarden.db.database import Tx
from tunewarden.deletion import protocol, records
from tunewarden.deletion.records import Deletion
from tunewarden.identity import keys
from tunewarden.registry import (
    artifacts,
    file_rows,
    holds,
    lineage,
    models,
    quota,
    replicas,
    retention_notices,
    upload_rows,
)
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType

EVENTS = {
    ArtifactKind.MODEL: WebhookEventType.MODEL_DELETED,
    ArtifactKind.FILE: WebhookEventType.FILE_DELETED,
}


def end(tx: Tx, deletions: Sequence[Deletion]) -> None:
    """Set each artifact to `deleted`, clear what must not outlive it, and store the receipts."""
    protocol.check_transition(State.DELETING, State.DELETED)
    numbers = [one.artifact_n for one in deletions]
    artifacts.end_deletions(tx, numbers)
    records.record_facts(tx, deletions, "log_index", "logged_at", "receipt", "deleted_at")
    replicas.forget_models(tx, numbers)
    file_rows.forget(tx, numbers)
    lineage.forget(tx, numbers)
    models.forget(tx, numbers)
    holds.forget(tx, numbers)
    retention_notices.forget_models(tx, numbers)
    upload_rows.forget_files(tx, numbers)
    quota.take_off_stored(tx, numbers)
    _record(tx, deletions)
    _publish(tx, deletions)


def _record(tx: Tx, deletions: Sequence[Deletion]) -> None:
    actors: dict[tuple[str, str], Actor] = {}
    acts = []
    for one in deletions:
        asked = one.requested_by, one.request_id
        if asked not in actors:
            actors[asked] = keys.actor_of(tx, one.requested_by, one.request_id or None)
        said = {"resource_type": one.kind, "deletion": one.id}
        acts.append(Act(one.organization_id, actors[asked], one.artifact_id, said))
    audit.record_each(tx, audit.EventType.RESOURCE_DELETED, acts)


def _publish(tx: Tx, deletions: Sequence[Deletion]) -> None:
    """Queue the events in the order of the deletions, each run of one type at once."""
    for (organization_id, kind), run in groupby(
        deletions, lambda one: (one.organization_id, ArtifactKind(one.kind))
    ):
        happened = [{"id": one.artifact_id, "deletion_id": one.id} for one in run]
        outbox.publish_each(tx, organization_id, EVENTS[kind], happened)

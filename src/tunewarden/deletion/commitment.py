"""D3 for one artifact: the commit point, in the transaction of the caller that deletes it."""

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Tx
from tunewarden.deletion import protocol, records
from tunewarden.deletion.records import Deletion, Intent
from tunewarden.finetuning import commands
from tunewarden.registry import aliases, artifacts
from tunewarden.registry.artifacts import Artifact, State


def commit(tx: Tx, artifact: Artifact, intent: Intent, actor: Actor, **details: object) -> Deletion:
    """D3: the point of no return, when the caller's transaction commits."""
    protocol.check_transition(artifact.state, State.DELETING)
    artifacts.begin_deletion(tx, artifact.n, intent.epoch)
    written = records.insert(tx, artifact, intent)
    audit.record(
        tx,
        audit.EventType.DELETION_REQUESTED,
        organization_id=artifact.organization_id,
        actor=actor,
        resource_id=artifact.id,
        deletion=intent.deletion_id,
        **details,
    )
    return written


def detach(tx: Tx, artifact: Artifact, actor: Actor, *, changed_by: str) -> None:
    """Let nothing need an artifact whose deletion this transaction commits.

    Unfinished jobs that need it are cancelled, and no alias points to it any more. `changed_by` is the id of an API key,
    or `replay.SERVER`.
    """
    commands.cancel_what_needs(tx, actor, [artifact.n])
    aliases.take_out(tx, artifact.n, actor, changed_by=changed_by)

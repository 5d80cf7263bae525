"""D3 for one artifact: the commit point, in the transaction of the caller that deletes it."""

from collections.abc import Sequence

from tunewarden import audit
from tunewarden.audit import Act, Actor
from tunewarden.db.database import Tx
from tunewarden.deletion import protocol, records
from tunewarden.deletion.records import Deletion, Intent
from tunewarden.finetuning import commands
from tunewarden.registry import aliases, artifacts
from tunewarden.registry.artifacts import Artifact, State


def commit(tx: Tx, artifact: Artifact, intent: Intent, actor: Actor, **details: object) -> Deletion:
    """D3: the point of no return, when the caller's transaction commits."""
    return commit_each(tx, [(artifact, intent)], actor, **details)[0]


def commit_each(
    tx: Tx, intents: Sequence[tuple[Artifact, Intent]], actor: Actor, **details: object
) -> list[Deletion]:
    """Do what `commit` does, for several artifacts; return their deletions in this order."""
    for artifact, _ in intents:
        protocol.check_transition(artifact.state, State.DELETING)
    artifacts.begin_deletions(tx, {artifact.n: intent.epoch for artifact, intent in intents})
    written = records.insert(tx, intents)
    acts = [
        Act(one.organization_id, actor, one.id, {"deletion": intent.deletion_id, **details})
        for one, intent in intents
    ]
    audit.record_each(tx, audit.EventType.DELETION_REQUESTED, acts)
    return written


def detach(tx: Tx, artifact: Artifact, actor: Actor, *, changed_by: str) -> None:
    """Let nothing need an artifact whose deletion this transaction commits.

    Unfinished jobs that need it are cancelled, and no alias points to it any more. `changed_by` is the id of an API key,
    or `replay.SERVER`.
    """
    commands.cancel_what_needs(tx, actor, [artifact.n])
    aliases.take_out(tx, artifact.n, actor, changed_by=changed_by)

"""Asking for a deletion: D1 to D3, and the commit point. Also the rule for a repeated request (I5)."""

from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.clock import to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import plan, protocol, records
from tunewarden.deletion.records import Deletion
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys, policy
from tunewarden.identity.policy import ALLOWED, Action, Caller
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts, files, models
from tunewarden.registry.artifacts import (
    ID_LENGTH_MAX,
    VISIBLE,
    Artifact,
    ArtifactKind,
    State,
)

# A default SDK's last attempt starts at most 24 minutes after its first (research: contract, 2).
REPLAY_MICROS = 30 * 60 * 1_000_000
IDEMPOTENCY_KEY_LENGTH_MAX = 255
MISSING = {ArtifactKind.MODEL: models.missing, ArtifactKind.FILE: files.missing}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How the request was sent: what tells a repetition of the first one from a second one."""

    retry_count: int = 0
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is written down at the commit point. `requested_at` is in microseconds since 1970."""

    deletion_id: str
    requested_by: str
    requested_at: int
    epoch: int
    log_since: int
    request_id: str = ""
    idempotency_key: str | None = None


def request_deletion(
    database: Database,
    caller: Caller,
    kind: ArtifactKind,
    artifact_id: str,
    attempt: Attempt,
    *,
    log_size: int,
) -> Deletion:
    """Commit the deletion of a model or a file; a repeated request gets the first one's.

    `log_size` is the log's size before the call: this deletion's leaf will not stand before it.
    Raises Error(NOT_FOUND), Error(FORBIDDEN) and Error(CONFLICT); each leaves an audit event.
    """
    if attempt.idempotency_key and len(attempt.idempotency_key) > IDEMPOTENCY_KEY_LENGTH_MAX:
        raise Error(
            Kind.INVALID, "An Idempotency-Key may have 255 characters.", param="Idempotency-Key"
        )
    try:
        with database.write() as tx:
            return _request(tx, caller, kind, artifact_id, attempt, log_size=log_size)
    except Error as refused:
        if refused.kind in {Kind.NOT_FOUND, Kind.FORBIDDEN, Kind.CONFLICT}:
            _record_refusal(database, caller, artifact_id, refused)
        raise


def _request(
    tx: Tx, caller: Caller, kind: ArtifactKind, artifact_id: str, attempt: Attempt, *, log_size: int
) -> Deletion:
    artifact = _find(tx, caller, kind, artifact_id)  # D1
    if artifact.state not in VISIBLE:
        first = records.find_of(tx, artifact.n)
        if first is None or not _is_repetition(first, caller, attempt, to_micros(tx.now)):
            raise MISSING[kind](artifact_id)
        return first
    # I8: the role is read here, in the transaction that deletes, not where the request came in.
    role = keys.role_now(tx, caller)
    if (
        role is None
        or Action.DELETE not in ALLOWED[role]
        or not policy.allows(caller, Action.DELETE)
    ):
        raise policy.refusal(caller, Action.DELETE)
    found = plan.of(tx, kind, artifact)
    plan.check(found)  # D2
    parts = [
        commit(tx, part, _intent(tx, caller, part, attempt, log_size), caller.actor)
        for part in found.checkpoints
    ]
    # After its parts, so that whoever resumes deletions in their order ends them before it.
    deletion = commit(tx, artifact, _intent(tx, caller, artifact, attempt, log_size), caller.actor)
    for part in parts:
        tx.run("UPDATE deletions SET parent_n = :parent WHERE n = :n", parent=deletion.n, n=part.n)
    return deletion


def _find(tx: Tx, caller: Caller, kind: ArtifactKind, artifact_id: str) -> Artifact:
    """D1: return an artifact that the caller may know of. Raises Error(NOT_FOUND), Error(FORBIDDEN)."""
    found = artifacts.find_any(tx, kind, caller.organization_id, artifact_id)
    if kind is ArtifactKind.MODEL:
        if found is None and tx.row("SELECT 1 FROM bases WHERE name = :name", name=artifact_id):
            raise plan.base_refused(artifact_id)
        is_seen = found is not None and models.is_seen_by(tx, caller, found.n)
    else:
        is_seen = found is not None and found.project_id == caller.project_id
    if found is None or not is_seen:
        raise MISSING[kind](artifact_id)
    return found


def _intent(tx: Tx, caller: Caller, artifact: Artifact, attempt: Attempt, log_size: int) -> Intent:
    return Intent(
        deletion_id=mint(Prefix.DELETION),
        requested_by=caller.key_id,
        requested_at=tx.now_micros,
        epoch=artifact.epoch + 1,
        log_since=log_size,
        request_id=caller.request_id,
        idempotency_key=attempt.idempotency_key,
    )


def commit(tx: Tx, artifact: Artifact, intent: Intent, actor: Actor, **details: object) -> Deletion:
    """D3: the point of no return, when the caller's transaction commits."""
    protocol.check_transition(artifact.state, State.DELETING)
    tx.run(
        "UPDATE artifacts SET state = 'deleting', epoch = :epoch WHERE n = :n",
        epoch=intent.epoch,
        n=artifact.n,
    )
    tx.run(
        "INSERT INTO deletions (id, artifact_n, organization_id, requested_by, request_id,"
        " idempotency_key, requested_at, epoch, log_since) VALUES (:id, :artifact, :organization, :by,"
        " :request, :key, :at, :epoch, :since)",
        id=intent.deletion_id,
        artifact=artifact.n,
        organization=artifact.organization_id,
        by=intent.requested_by,
        request=intent.request_id,
        key=intent.idempotency_key,
        at=intent.requested_at,
        epoch=intent.epoch,
        since=intent.log_since,
    )
    audit.record(
        tx,
        audit.EventType.DELETION_REQUESTED,
        organization_id=artifact.organization_id,
        actor=actor,
        resource_id=artifact.id,
        deletion=intent.deletion_id,
        **details,
    )
    written = records.find_of(tx, artifact.n)
    if written is None:
        raise RuntimeError("the deletion was written in this transaction")
    return written


def _is_repetition(first: Deletion, caller: Caller, attempt: Attempt, now_micros: int) -> bool:
    """Tell whether a request repeats the first one: the same key, and it says so or the SDK does."""
    if first.requested_by != caller.key_id:
        return False
    if attempt.idempotency_key is not None and attempt.idempotency_key == first.idempotency_key:
        return True
    return attempt.retry_count >= 1 and now_micros - first.requested_at < REPLAY_MICROS


def _record_refusal(database: Database, caller: Caller, artifact_id: str, refused: Error) -> None:
    """Write the refused attempt; its own transaction was rolled back."""
    with database.write() as tx:
        audit.record(
            tx,
            audit.EventType.DELETION_REFUSED,
            organization_id=caller.organization_id,
            actor=caller.actor,
            resource_id=artifact_id[:ID_LENGTH_MAX],
            reason=refused.kind.value,
        )

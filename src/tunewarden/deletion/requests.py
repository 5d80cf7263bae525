"""Requests for deletions: D1 to D3, the commit point, and the rule for retries (I5)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from tunewarden import audit
from tunewarden.audit import refusals
from tunewarden.audit.resource_ids import recordable
from tunewarden.clock import to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import case_rows, plan, records, together
from tunewarden.deletion.case_rows import Case
from tunewarden.deletion.cases.cascade import Cascade
from tunewarden.deletion.plan import Plan
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.together import Asked
from tunewarden.deletion.use import IsServed, not_seen
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller
from tunewarden.registry import alias_rows, aliases, artifacts, bases, file_rows, models
from tunewarden.registry.artifacts import (
    VISIBLE,
    Artifact,
    ArtifactKind,
    State,
)

# A default SDK's last attempt starts at most 24 minutes after its first (research: contract, 2).
REPLAY_MICROS = 30 * 60 * 1_000_000
IDEMPOTENCY_KEY_LENGTH_MAX = 255
REFUSALS = {Kind.NOT_FOUND, Kind.FORBIDDEN, Kind.CONFLICT, Kind.PRECONDITION_FAILED}
MISSING = {ArtifactKind.MODEL: models.missing, ArtifactKind.FILE: file_rows.missing}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How the request was sent: what it insists on, and what tells a retry of the first request from a second one."""

    retry_count: int = 0
    idempotency_key: str | None = None
    # Override every blocker but a hold.
    force: bool = False
    # The fingerprint of the plan that the client saw, as the header If-Match.
    if_match: str | None = None
    # Raises Error(CONFLICT) if, as D3 reads it, the artifact is not what was asked for any more.
    recheck: Callable[[Tx, Artifact], None] | None = None
    # Delete everything that learned from the file too, as a case.
    with_models: bool = False
    # Sees the use of models that has no rows yet.
    is_served: IsServed = not_seen


class Part(Enum):
    """The relation of a request to the deletion."""

    FIRST = auto()  # it committed the deletion
    REPEATED = auto()  # a retry of the first one, which gets its response
    SECOND = auto()  # another request; it gets a 404, never before the deletion is done (I5)


@dataclass(frozen=True, slots=True)
class RequestedDeletion:
    """A committed deletion, the request's relation to it, and the case that began with its artifact."""

    deletion: Deletion
    part: Part
    case: Case | None = None


def request_deletion(
    database: Database,
    caller: Caller,
    kind: ArtifactKind,
    artifact_id: str,
    attempt: Attempt,
    *,
    log_size: int,
) -> RequestedDeletion:
    """Commit the deletion of a model or a file, or return the one already committed.

    `log_size` is the log's size before the call: this deletion's leaf will follow it.
    Raises Error(NOT_FOUND), Error(FORBIDDEN), Error(CONFLICT) and Error(PRECONDITION_FAILED); each leaves an
    audit event.
    """
    check_idempotency_key(attempt.idempotency_key)
    try:
        with database.write(below_floor=True) as tx:
            return request_in(tx, caller, kind, artifact_id, attempt, log_size=log_size)
    except Error as refused:
        if refused.kind in REFUSALS:
            record_refusal(database, caller, kind, artifact_id, refused)
        raise


def is_about_caller(refused: Error) -> bool:
    """Return whether an error refuses the caller, whatever it asks to delete."""
    if refused.kind is Kind.FORBIDDEN:
        return refused.code != plan.BASE_REFUSED
    return refused.kind is Kind.UNAUTHENTICATED


def check_idempotency_key(key: str | None) -> None:
    """Check the length of an Idempotency-Key. Raises Error(INVALID)."""
    if key and len(key) > IDEMPOTENCY_KEY_LENGTH_MAX:
        raise Error(
            Kind.INVALID,
            "An Idempotency-Key must be at most 255 characters.",
            param="Idempotency-Key",
        )


def request_in(
    tx: Tx, caller: Caller, kind: ArtifactKind, artifact_id: str, attempt: Attempt, *, log_size: int
) -> RequestedDeletion:
    """Do what `request_deletion` does, in a transaction; what it refuses has written nothing."""
    artifact = _find(tx, caller, kind, artifact_id)  # D1
    if artifact.state not in VISIBLE:
        return _asked_again(tx, caller, kind, artifact, attempt)
    keys.authorize_now(tx, caller, Action.DELETE)  # I8
    found = _plan(tx, caller, kind, artifact, attempt)
    plan.check(  # D2
        found, force=attempt.force, if_match=attempt.if_match, with_models=attempt.with_models
    )
    if attempt.recheck is not None:
        attempt.recheck(tx, artifact)
    asked = asked_by(caller, attempt, log_size)
    if found.cascade is not None and attempt.with_models:
        return _commit_case(tx, artifact, found.cascade, asked)
    return RequestedDeletion(together.commit_all(tx, [artifact], asked)[-1], Part.FIRST)


def asked_by(caller: Caller, attempt: Attempt, log_size: int) -> Asked:
    """Return who asks for the deletions of a request."""
    return Asked(
        requested_by=caller.key_id,
        actor=caller.actor,
        log_size=log_size,
        request_id=caller.request_id,
        idempotency_key=attempt.idempotency_key,
    )


def _plan(tx: Tx, caller: Caller, kind: ArtifactKind, artifact: Artifact, attempt: Attempt) -> Plan:
    """Return the plan; with what learned from a file only if that is deleted too, or its fingerprint is compared."""
    needs_all = attempt.with_models or attempt.if_match is not None
    if kind is ArtifactKind.FILE and needs_all:
        return plan.with_cascade(tx, caller, artifact, attempt.is_served)
    return plan.of(tx, kind, artifact, attempt.is_served)


def _commit_case(tx: Tx, file: Artifact, found: Cascade, asked: Asked) -> RequestedDeletion:
    """D3 of a file and of everything that learned from it. The file is last: it is gone when all of it is."""
    # What learned last goes first.
    chosen = [*(one.artifact for one in reversed(found.learned.members)), file]
    begun = [records.find_of(tx, n) for n in found.learned.under_way]
    case = together.commit_case(
        tx,
        file.organization_id,
        chosen,
        asked,
        origin=file,
        under_way=[one for one in begun if one is not None],
        hidden=found.learned.hidden,
    )
    deletion = records.find_of(tx, file.n)
    assert deletion is not None, "it was committed in this transaction"
    return RequestedDeletion(deletion, Part.FIRST, case)


def _asked_again(
    tx: Tx, caller: Caller, kind: ArtifactKind, artifact: Artifact, attempt: Attempt
) -> RequestedDeletion:
    """Return the deletion of an artifact that is deleted or being deleted. Raises like D1."""
    first = records.find_of(tx, artifact.n)
    case = case_rows.of_origin(tx, artifact.n)
    # A deletion without a case does not answer a request for what learned from it too.
    is_answered = case is not None or not attempt.with_models
    if (
        first is not None
        and is_answered
        and _is_repetition(first, caller, attempt, to_micros(tx.now))
    ):
        return RequestedDeletion(first, Part.REPEATED, case)
    is_over = artifact.state is State.DELETED and (case is None or case.finished_at is not None)
    if first is None or is_over:
        raise MISSING[kind](artifact.id)
    keys.authorize_now(tx, caller, Action.DELETE)  # I8
    return RequestedDeletion(first, Part.SECOND, case)


def _find(tx: Tx, caller: Caller, kind: ArtifactKind, artifact_id: str) -> Artifact:
    """D1: return an artifact that the caller can see. Raises Error(NOT_FOUND), Error(FORBIDDEN)."""
    found = artifacts.find_any(tx, kind, caller.organization_id, artifact_id)
    if kind is ArtifactKind.MODEL:
        if found is None and bases.exists(tx, artifact_id):
            raise plan.base_refused(artifact_id)
        if found is None and (alias := alias_rows.find(tx, caller.organization_id, artifact_id)):
            keys.authorize_now(tx, caller, Action.DELETE)
            raise aliases.is_alias(alias)
        is_seen = found is not None and models.is_seen_by(tx, caller, found.n)
    else:
        is_seen = found is not None and found.project_id == caller.project_id
    if found is None or not is_seen:
        raise MISSING[kind](artifact_id)
    return found


def _is_repetition(first: Deletion, caller: Caller, attempt: Attempt, now_micros: int) -> bool:
    """Return whether a request retries the first one: same API key, and same Idempotency-Key or the SDK's retry count."""
    if first.requested_by != caller.key_id:
        return False
    if attempt.idempotency_key is not None and attempt.idempotency_key == first.idempotency_key:
        return True
    # A restored database has it from the log, which does not tell the first one's Idempotency-Key: any may be it.
    may_be_same = attempt.idempotency_key is not None and first.is_from_log
    is_retry = may_be_same or attempt.retry_count >= 1
    return is_retry and now_micros - first.requested_at < REPLAY_MICROS


def record_refusal(
    database: Database, caller: Caller, kind: ArtifactKind, artifact_id: str, refused: Error
) -> None:
    """Audit a refused attempt, whose transaction was rolled back; not on a full disk."""
    is_base = kind is ArtifactKind.MODEL and bases.find(database, artifact_id) is not None
    refusals.refuse(
        database,
        audit.EventType.DELETION_REFUSED,
        refused,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=artifact_id if is_base else recordable(artifact_id),
        reason=refused.kind.value,
    )

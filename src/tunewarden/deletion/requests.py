"""Asking for a deletion: D1 to D3, and the commit point. Also the rule for a repeated request (I5)."""

from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.clock import to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import protocol, records
from tunewarden.deletion.records import Deletion
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys, policy
from tunewarden.identity.policy import ALLOWED, Action, Caller
from tunewarden.ids import Prefix, mint
from tunewarden.registry import models
from tunewarden.registry.models import VISIBLE, Model, State

# A default SDK's last attempt starts at most 24 minutes after its first (research: contract, 2).
REPLAY_MICROS = 30 * 60 * 1_000_000
IDEMPOTENCY_KEY_LENGTH_MAX = 255


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
    database: Database, caller: Caller, model_id: str, attempt: Attempt, *, log_size: int
) -> Deletion:
    """Commit the deletion of a model and return it; a repeated request gets the first one's.

    `log_size` is the log's size before the call: this deletion's leaf will not stand before it.
    Raises Error(NOT_FOUND) and Error(FORBIDDEN); both leave an audit event.
    """
    if attempt.idempotency_key and len(attempt.idempotency_key) > IDEMPOTENCY_KEY_LENGTH_MAX:
        raise Error(
            Kind.INVALID, "An Idempotency-Key may have 255 characters.", param="Idempotency-Key"
        )
    try:
        with database.write() as tx:
            return _request(tx, caller, model_id, attempt, log_size)
    except Error as refused:
        if refused.kind in {Kind.NOT_FOUND, Kind.FORBIDDEN}:
            _record_refusal(database, caller, model_id, refused)
        raise


def _request(tx: Tx, caller: Caller, model_id: str, attempt: Attempt, log_size: int) -> Deletion:
    model = models.find_any(tx, caller.organization_id, model_id)  # D1
    if model is None:
        if tx.row("SELECT 1 FROM bases WHERE name = :name", name=model_id):
            raise _base_refused(model_id)
        raise models.missing(model_id)
    if model.state not in VISIBLE:
        first = records.find_of_model(tx, model.n)
        if first is None or not _is_repetition(first, caller, attempt, to_micros(tx.now)):
            raise models.missing(model_id)
        return first
    # I8: the role is read here, in the transaction that deletes, not where the request came in.
    role = keys.role_now(tx, caller)
    if (
        role is None
        or Action.DELETE not in ALLOWED[role]
        or not policy.allows(caller, Action.DELETE)
    ):
        raise policy.refusal(caller, Action.DELETE)
    intent = Intent(
        deletion_id=mint(Prefix.DELETION),
        requested_by=caller.key_id,
        requested_at=tx.now_micros,
        epoch=model.epoch + 1,
        log_since=log_size,
        request_id=caller.request_id,
        idempotency_key=attempt.idempotency_key,
    )
    return commit(tx, model, intent, caller.actor)


def commit(tx: Tx, model: Model, intent: Intent, actor: Actor, **details: object) -> Deletion:
    """D3: the point of no return, when the caller's transaction commits."""
    protocol.check_transition(model.state, State.DELETING)
    tx.run(
        "UPDATE models SET state = 'deleting', epoch = :epoch WHERE n = :n",
        epoch=intent.epoch,
        n=model.n,
    )
    tx.run(
        "INSERT INTO deletions (id, model_n, organization_id, requested_by, request_id, idempotency_key,"
        " requested_at, epoch, log_since) VALUES (:id, :model, :organization, :by, :request, :key, :at,"
        " :epoch, :since)",
        id=intent.deletion_id,
        model=model.n,
        organization=model.organization_id,
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
        organization_id=model.organization_id,
        actor=actor,
        resource_id=model.id,
        deletion=intent.deletion_id,
        **details,
    )
    written = records.find_of_model(tx, model.n)
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


def _base_refused(name: str) -> Error:
    return Error(
        Kind.FORBIDDEN,
        f"The model '{name[: models.ID_LENGTH_MAX]}' is a base model. Only fine-tuned models can be deleted.",
        param="model",
        code="base_model_not_deletable",
    )


def _record_refusal(database: Database, caller: Caller, model_id: str, refused: Error) -> None:
    """Write the refused attempt; its own transaction was rolled back."""
    with database.write() as tx:
        audit.record(
            tx,
            audit.EventType.DELETION_REFUSED,
            organization_id=caller.organization_id,
            actor=caller.actor,
            resource_id=model_id[: models.ID_LENGTH_MAX],
            reason=refused.kind.value,
        )

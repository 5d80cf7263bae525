"""D3 for several artifacts at once: one transaction commits the deletions of all, as a case or without one.

A hold or a job that is placed at the same time comes before it or after it, never between. The caller has authorized,
and checked what blocks each of them, in the same transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Tx
from tunewarden.deletion import case_rows, records
from tunewarden.deletion.case_rows import Case
from tunewarden.deletion.commitment import commit, commit_each, detach
from tunewarden.deletion.records import Deletion, Intent
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint, random_bytes
from tunewarden.registry import models
from tunewarden.registry.artifacts import Artifact
from tunewarden_receipts.commitments import SALT_BYTES

# One transaction of so many takes seconds.
MEMBERS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks for the deletions; `log_size` is the log's size before the transaction: their leaves will follow it.

    `requested_by` is the id of an API key, or `replay.SERVER`. `reason` is for the audit log.
    """

    requested_by: str
    actor: Actor
    log_size: int
    request_id: str = ""
    idempotency_key: str | None = None
    reason: str | None = None


def commit_all(tx: Tx, chosen: Sequence[Artifact], asked: Asked) -> list[Deletion]:
    """Commit the deletions of active or archived artifacts of one organization, and of models' checkpoints (D3).

    Unfinished jobs that need one of them are cancelled, and no alias points to one any more. Returns the deletions in
    the order in which they are done: a model after its checkpoints, otherwise as `chosen`. Raises Error(CONFLICT) for
    more than MEMBERS_MAX.
    """
    parents = _with_parents(tx, chosen)
    check_size(len(parents))
    done: dict[int, Deletion] = {}
    details = {} if asked.reason is None else {"reason": asked.reason}
    for one, _ in parents:
        detach(tx, one, asked.actor, changed_by=asked.requested_by)
        done[one.n] = commit(tx, one, _intent(tx, one, asked), asked.actor, **details)
    for one, parent_n in parents:
        if parent_n is not None:
            records.note_parent(tx, done[one.n], done[parent_n])
    return list(done.values())


def commit_free(tx: Tx, chosen: Sequence[Artifact], asked: Asked) -> list[Deletion]:
    """Commit deletions like `commit_all`, of models that no job needs, no alias means, and that have no checkpoints."""
    assert asked.reason is None, "nobody gives one"
    return commit_each(tx, [(one, _intent(tx, one, asked)) for one in chosen], asked.actor)


def commit_case(  # noqa: PLR0917  each is of another type
    tx: Tx,
    organization_id: str,
    chosen: Sequence[Artifact],
    asked: Asked,
    origin: Artifact | None = None,
    under_way: Sequence[Deletion] = (),
    hidden: int = 0,
) -> Case:
    """Commit deletions like `commit_all`, as a case; return it.

    `origin`, one of `chosen`, is what the case began with. `under_way`: deletions that began before and belong to it
    too. `hidden`: how many artifacts belong to it that stay. Raises Error(CONFLICT) for more than MEMBERS_MAX.
    """
    check_size(len(chosen) + len(under_way))
    deletions = [*under_way, *commit_all(tx, chosen, asked)]
    case_id = mint(Prefix.CASE)
    case_rows.insert(
        tx,
        case_id,
        organization_id,
        None if origin is None else origin.n,
        asked.requested_by,
        asked.request_id,
        _salt(case_id, deletions, origin),
        hidden,
        [one.n for one in deletions],
    )
    audit.record(
        tx,
        audit.EventType.CASE_REQUESTED,
        organization_id=organization_id,
        actor=asked.actor,
        resource_id=case_id,
        members=len(deletions),
        hidden=hidden,
        **({} if origin is None else {"origin": origin.id}),
    )
    case = case_rows.find(tx, case_id)
    assert case is not None, "the row was written in this transaction"
    return case


def _salt(case_id: str, deletions: Sequence[Deletion], origin: Artifact | None) -> bytes:
    for one in deletions:
        if origin is not None and one.artifact_n == origin.n:
            return case_rows.salt_of(one.salt, case_id)
    return random_bytes(SALT_BYTES)


def check_size(count: int) -> None:
    """Check that so many deletions fit into one transaction. Raises Error(CONFLICT)."""
    if count > MEMBERS_MAX:
        raise too_large()


def too_large() -> Error:
    """Return the error for more deletions than fit into one transaction."""
    return Error(
        Kind.CONFLICT,
        f"This would delete more than {MEMBERS_MAX} models and files in one transaction, which is the limit. Nothing"
        " was deleted. Delete some of them first: those that were made last, or another file that they learned from.",
        code="case_too_large",
    )


def _with_parents(tx: Tx, chosen: Sequence[Artifact]) -> list[tuple[Artifact, int | None]]:
    """Return the artifacts and the checkpoints that go with models, each with the number of its model, in order."""
    found: dict[int, tuple[Artifact, int | None]] = {}
    for one in chosen:
        for checkpoint in models.checkpoints_of(tx, one.n):
            # It may be among `chosen` itself, and earlier.
            found[checkpoint.n] = (checkpoint, one.n)
        found.setdefault(one.n, (one, None))
    return list(found.values())


def _intent(tx: Tx, artifact: Artifact, asked: Asked) -> Intent:
    return Intent(
        deletion_id=mint(Prefix.DELETION),
        requested_by=asked.requested_by,
        requested_at=tx.now_micros,
        epoch=artifact.epoch + 1,
        log_since=asked.log_size,
        request_id=asked.request_id,
        idempotency_key=asked.idempotency_key,
    )

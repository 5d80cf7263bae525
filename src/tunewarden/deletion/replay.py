"""A leaf of the log, applied to a database that has not seen it: it was restored, or a crash came (D10)."""

import json
from dataclasses import asdict
from datetime import datetime

from tunewarden import audit
from tunewarden.clock import to_micros
from tunewarden.db.database import Tx
from tunewarden.deletion import records
from tunewarden.deletion.facts import BlobsErasedFacts, DeletionFacts
from tunewarden.deletion.requests import Intent, commit
from tunewarden.errors import Error, Kind
from tunewarden.registry import artifacts
from tunewarden.registry.artifacts import Artifact, ArtifactKind, State


def check_history(tx: Tx, facts: DeletionFacts) -> None:
    """Return if database and log do not contradict each other. Raises Error(UNAVAILABLE)."""
    begun = _begun(tx, facts)[1]
    if begun is not None and begun.id != facts.deletion_id:
        raise Error(
            Kind.UNAVAILABLE,
            f"The log says that {facts.deletion_id} deleted {facts.artifact_id}, the database says {begun.id}."
            " They are copies of different histories. Restore both from the same time or later."
            " Nothing was changed.",
            code="histories_differ",
        )


def deletion(tx: Tx, facts: DeletionFacts, index: int, bundle: bytes) -> int:
    """Note what a leaf says is done up to the log (D7); return 1 if the database did not know of it.

    D6 is noted too: the keyring must have been found as new as the leaf.
    """
    artifact, begun = _begun(tx, facts)
    if artifact is None:
        return 0
    intent = Intent(
        deletion_id=facts.deletion_id,
        requested_by=facts.requested_by,
        requested_at=_micros(facts.requested_at),
        epoch=facts.epoch,
        log_since=index,
    )
    # Also where it was begun: its own steps would find other times, and make a second leaf.
    records.record_facts(
        tx,
        begun
        or commit(tx, artifact, intent, audit.SERVER, reason="the log says that it was deleted"),
        fenced_at=_micros(facts.fenced_at),
        fence_report=[asdict(worker) for worker in facts.fence],
        evicted_at=_micros(facts.evicted_at),
        evict_report=[asdict(engine) for engine in facts.engines],
        key_erased_at=_micros(facts.key_erased_at),
        key_report=asdict(facts.key),
        log_index=index,
        receipt=bundle,
    )
    return 0 if begun else 1


def blobs_erased(tx: Tx, facts: BlobsErasedFacts, index: int) -> None:
    """Note what the second leaf says, so that D9 finds this leaf and does not make another."""
    report = {
        "count": facts.count,
        "versions": facts.versions,
        "size_bytes": facts.size_bytes,
        "erased_at": facts.erased_at,
        "software": facts.software,
    }
    records.record_blobs_report(tx, facts.deletion_id, json.dumps(report), index)


def _begun(tx: Tx, facts: DeletionFacts) -> tuple[Artifact | None, records.Deletion | None]:
    """Return the artifact, unless it is unknown or deleted already, and its deletion, if it has begun."""
    kind = ArtifactKind(facts.kind)
    found = artifacts.find_any(tx, kind, facts.organization_id, facts.artifact_id)
    if found is None or found.state is State.DELETED:
        return None, None
    return found, records.find_of(tx, found.n)


def _micros(text: str) -> int:
    return to_micros(datetime.fromisoformat(text))

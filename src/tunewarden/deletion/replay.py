"""Replays a leaf of the log into a database that has not seen it, after a restore or a crash (D10)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime

from msgspec.structs import replace

from tunewarden import audit
from tunewarden.audit import digests
from tunewarden.audit.digests import Digest
from tunewarden.clock import to_micros
from tunewarden.db.database import Tx
from tunewarden.deletion import case_rows, records
from tunewarden.deletion.cases import case_summary, lost_cases
from tunewarden.deletion.commitment import commit, detach
from tunewarden.deletion.disclosure import asker, exporter, read_disclosure
from tunewarden.deletion.records import Intent
from tunewarden.deletion.reports import KeyReport
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys, organizations
from tunewarden.registry import artifacts, export_rows
from tunewarden.registry.artifacts import Artifact, ArtifactKind, State
from tunewarden.registry.export_rows import Export
from tunewarden_receipts import receipt
from tunewarden_receipts.audit_digest import AuditDigestLeaf
from tunewarden_receipts.deletion_case import CaseLeaf
from tunewarden_receipts.facts import DeletionFacts
from tunewarden_receipts.leaf import DeletionLeaf, Disclosure, ExportLeaf, opened
from tunewarden_receipts.statement import BlobsErased, Deleted

SERVER = "server"
# The caller of a deletion, if none of the organization's known keys matches.
UNKNOWN = "unknown"
# The columns that a leaf of the log fills, and its receipt.
FOUND_IN_THE_LOG = (
    "fenced_at", "evicted_at", "key_erased_at", "key_report", "log_index", "logged_at",
    "receipt",
)  # fmt: skip


def check_history(tx: Tx, facts: Deleted) -> None:
    """Check that database and log do not contradict each other. Raises Error(UNAVAILABLE)."""
    found = _find(tx, facts)
    if found is None:
        return
    artifact, salt = found
    if not _names(facts, artifact, salt):
        raise _does_not_match(facts, artifact)
    known = records.find_of(tx, artifact.n)
    if artifact.state is not State.DELETED and known and known.id != facts.deletion_id:
        raise _histories_differ(
            f"The log says that {facts.deletion_id} deleted {artifact.id}, the database says {known.id}."
        )


def deletion(
    tx: Tx, facts: Deleted, index: int, bundle: Callable[[Disclosure | None], bytes]
) -> int:
    """Store a leaf's deletion as done up to D7; return 1 if the database did not know it.

    D6 included: the caller has checked that the keyring is as new as the leaf. `bundle` builds the receipt that
    discloses what the database still knows.
    """
    found = _find(tx, facts)
    if found is None or found[0].state is State.DELETED:
        return 0
    artifact, salt = found
    known = records.find_of(tx, artifact.n)
    if known is None:
        # An older database may have aliases and jobs that were gone when it was deleted.
        detach(tx, artifact, audit.SERVER, changed_by=SERVER)
    noted = known or commit(
        tx,
        artifact,
        Intent(
            deletion_id=facts.deletion_id,
            requested_by=_asker(tx, facts, artifact, salt),
            requested_at=_micros(facts.requested_at),
            epoch=facts.epoch,
            log_since=index,
        ),
        audit.SERVER,
        reason="the log says that it was deleted",
    )
    shown = None
    if isinstance(facts, DeletionLeaf):
        shown = opened(facts, read_disclosure(tx, noted))
    # Even if it had begun: repeating its steps would record other times, and make a second leaf.
    logged = replace(
        noted,
        fenced_at=_micros(facts.fenced_at),
        evicted_at=_micros(facts.evicted_at),
        key_erased_at=_micros(facts.key_erased_at),
        key_report=KeyReport(**asdict(facts.key)),
        log_index=index,
        # At the latest: a leaf has no time. Of one that came before a restore nothing is known.
        logged_at=noted.logged_at or (tx.now_micros if known else None),
        receipt=bundle(shown),
    )
    records.record_facts(tx, [logged], *FOUND_IN_THE_LOG)
    return 0 if known else 1


def blobs_erased(tx: Tx, facts: BlobsErased, index: int) -> None:
    """Store the second leaf's index, so that D9 does not append another."""
    records.record_blobs_leaf(tx, facts.deletion_id, index)


def check_export_history(tx: Tx, facts: ExportLeaf) -> None:
    """Check that the leaf of an export does not contradict the database. Raises Error(UNAVAILABLE)."""
    found = artifacts.find_internal(tx, ArtifactKind.MODEL, facts.internal_id)
    if found is not None and not _names(facts, *found):
        raise _does_not_match(facts, found[0])


def export(tx: Tx, facts: ExportLeaf, index: int) -> None:
    """Store a leaf's export, if the database does not know it but knows its model; and where the leaf is."""
    if export_rows.exists(tx, facts.export_id):
        export_rows.note_leaf(tx, facts.export_id, index)
        return
    found = artifacts.find_internal(tx, ArtifactKind.MODEL, facts.internal_id)
    if found is None:
        return
    artifact, salt = found
    known = keys.ids_of(tx, artifact.organization_id)
    made = Export(
        facts.export_id,
        exporter(facts, salt, known) or UNKNOWN,
        _micros(facts.exported_at),
        index,
    )
    export_rows.insert(tx, artifact.n, made)
    audit.record(
        tx,
        audit.EventType.MODEL_EXPORTED,
        organization_id=artifact.organization_id,
        actor=audit.SERVER,
        resource_id=artifact.id,
        export=made.id,
        reason="the log says that it was exported",
    )


def case(
    tx: Tx,
    facts: CaseLeaf,
    index: int,
    bundle: Callable[[Disclosure | None], bytes],
    going_on: Sequence[Deleted],
) -> None:
    """Store that a case is finished, if the database knows it, or what it began with.

    `going_on`: the leaves of deletions that went on when it was requested, which the database has by now.
    """
    known = case_rows.find(tx, facts.case_id)
    if known is None:
        found = [_find(tx, one) for one in going_on]
        deletions = [records.find_of(tx, artifact.n) for artifact, _ in filter(None, found)]
        known = lost_cases.restore(tx, facts, [one for one in deletions if one is not None])
    if known is not None:
        shown = opened(facts, case_summary.disclosure_of(known))
        case_summary.record_end(tx, known, index, bundle(shown))


def check_audit_history(tx: Tx, facts: AuditDigestLeaf) -> None:
    """Check that the database knows no other digest of the audit log with this number. Raises Error(UNAVAILABLE)."""
    known = digests.find(tx, facts.sequence)
    if known is not None and known.statement not in {None, receipt.build(facts)}:
        raise _histories_differ(
            f"The log's digest {facts.sequence} of the audit log does not match the database's."
        )


def audit_digest(tx: Tx, facts: AuditDigestLeaf, index: int) -> list[int]:
    """Store where the leaf of a digest is; return its number if the database does not have its events."""
    if digests.find(tx, facts.sequence) is not None:
        digests.note_leaf(tx, facts.sequence, index)
        return []
    newest = digests.newest(tx)
    last_n = newest.last_n if newest else 0
    digests.insert(tx, Digest(facts.sequence, last_n, None, index, index))
    return [facts.sequence]


def hand_over(tx: Tx, previous_key: str, new_key: str, index: int) -> None:
    """Record that the log's key was rotated by entry `index`. Once: in the transaction that raises the mark over it."""
    audit.record(
        tx,
        audit.EventType.LOG_KEY_ROTATED,
        organization_id="",
        actor=audit.SERVER,
        resource_id="log",
        previous_key=previous_key,
        new_key=new_key,
        entry=index,
    )


def record_lost(tx: Tx, lost: Sequence[int]) -> None:
    """Record for each organization that digests have no events: the database is an older copy."""
    for organization_id in organizations.ids(tx) if lost else ():
        audit.record(
            tx,
            audit.EventType.AUDIT_RESTORED,
            organization_id=organization_id,
            actor=audit.SERVER,
            resource_id=organization_id,
            first_lost_digest=min(lost),
            last_lost_digest=max(lost),
        )


def _find(tx: Tx, facts: Deleted) -> tuple[Artifact, bytes] | None:
    """Return a leaf's artifact and its salt; None if the database does not know it."""
    return artifacts.find_internal(tx, ArtifactKind(facts.kind), facts.internal_id)


def _names(facts: Deleted | ExportLeaf, artifact: Artifact, salt: bytes) -> bool:
    """Return whether a leaf's commitments match this artifact."""
    if isinstance(facts, DeletionFacts):
        return facts.artifact_id == artifact.id
    named = Disclosure(
        salt.hex(),
        artifact_id=artifact.id,
        organization_id=artifact.organization_id,
        manifest_sha256=artifact.manifest_sha256,
    )
    return opened(facts, named) == named


def _asker(tx: Tx, facts: Deleted, artifact: Artifact, salt: bytes) -> str:
    if isinstance(facts, DeletionFacts):
        return facts.requested_by
    known = [SERVER, *keys.ids_of(tx, artifact.organization_id)]
    return asker(facts, salt, known) or UNKNOWN


def _does_not_match(facts: Deleted | ExportLeaf, artifact: Artifact) -> Error:
    return _histories_differ(
        f"The log's entry about {facts.internal_id} does not match the database's {artifact.id}."
    )


def _histories_differ(what: str) -> Error:
    return Error(
        Kind.UNAVAILABLE,
        f"{what} They are copies of different histories. Restore both from the same time or later."
        " Nothing was changed.",
        code="histories_differ",
    )


def _micros(text: str) -> int:
    return to_micros(datetime.fromisoformat(text))

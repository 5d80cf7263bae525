"""What a verified receipt says, as lines for a person. No line says more than a fact (I17)."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tunewarden_receipts import facts as format_1
from tunewarden_receipts.audit_digest import AuditDigestLeaf
from tunewarden_receipts.commitments import ListCommitment
from tunewarden_receipts.deletion_case import CaseLeaf
from tunewarden_receipts.facts import BlobsErasedFacts, DeletionFacts, ErasedKey, FencedWorker
from tunewarden_receipts.key_hand_over import KeyHandOverLeaf
from tunewarden_receipts.leaf import (
    BlobsErasedLeaf,
    DeletionLeaf,
    Disclosure,
    EvictedEngine,
    Export,
    ExportLeaf,
)
from tunewarden_receipts.receipt import VerifiedReceipt

T = TypeVar("T")
Lines = Iterator[tuple[str, str]]
HIDDEN = "not disclosed"
ENGINE_SAID = {
    "zeroed": "weights overwritten, read back as zeros",
    "not_loaded": "it did not have the model",
    "restarted": "the process that may have had the model has ended",
    "lease_ended": "its lease ended",
}


def summary(receipt: VerifiedReceipt) -> str:
    """Return what a receipt says."""
    return "".join(f"{name + ':':<14}{text}\n" for name, text in lines(receipt))


def lines(receipt: VerifiedReceipt) -> list[tuple[str, str]]:
    """Return the same as pairs of a name and a text."""
    facts, checkpoint = receipt.facts, receipt.checkpoint
    return [
        *_lines(receipt),
        ("software", facts.software),
        ("log", f"{checkpoint.origin}, entry {receipt.index} of {checkpoint.size}"),
        ("log key", f"sha256:{receipt.key_id}"),
    ]


def _lines(receipt: VerifiedReceipt) -> Lines:
    match receipt.facts:
        case DeletionLeaf() as leaf:
            yield from _deletion(leaf, receipt.disclosed or Disclosure(""))
        case BlobsErasedLeaf() as leaf:
            yield from _blobs_erased(leaf, receipt.disclosed or Disclosure(""))
        case ExportLeaf() as leaf:
            yield from _exported(leaf, receipt.disclosed or Disclosure(""))
        case CaseLeaf() as leaf:
            yield from _case(leaf, receipt.disclosed or Disclosure(""))
        case DeletionFacts() as facts:
            yield from _deletion_1(facts)
        case BlobsErasedFacts() as facts:
            yield from _blobs_erased_1(facts)
        case AuditDigestLeaf() as digest:
            yield "audit digest", str(digest.sequence)
            yield "digested", digest.digested_at
            yield "root", digest.root
        case KeyHandOverLeaf() as handed:
            yield "hand-over", f"{handed.sequence}, {handed.handed_over_at}"
            yield "  from key", f"sha256:{handed.previous_key_id}"
            yield "  to key", f"sha256:{handed.new_key_id}"


def _deletion(leaf: DeletionLeaf, shown: Disclosure) -> Lines:
    yield leaf.kind, shown.artifact_id or HIDDEN
    yield "internal id", leaf.internal_id
    yield from _manifest(shown.manifest_sha256)
    yield "deletion", leaf.deletion_id
    yield "organization", shown.organization_id or HIDDEN
    yield "requested", f"{leaf.requested_at} by {shown.requested_by or HIDDEN}"
    yield "committed", f"{leaf.committed_at}, epoch {leaf.epoch}"
    yield "fenced", leaf.fenced_at
    yield from _list("host", leaf.hosts, shown.hosts, lambda one: f"{one.host} {one.how}")
    yield from _list("worker", leaf.fence, shown.fence, _worker)
    yield "evicted", leaf.evicted_at
    yield from _list("engine", leaf.engines, shown.engines, _engine)
    yield "memory", leaf.memory
    yield from _key(leaf.key_erased_at, leaf.key)
    if shown.blobs is not None:
        yield "sealed blobs", f"{shown.blobs.count} ({shown.blobs.size_bytes} bytes)"
    for residual in leaf.residuals:
        yield "remains", residual
    if leaf.exports is not None:
        count = leaf.exports.count
        yield "exports", f"{count}, not reached by this deletion" if count else "none"
        yield from _list("exported", leaf.exports, shown.exports, _export)
    if leaf.lineage is not None:
        yield from _list("learned", leaf.lineage, shown.lineage, str)


def _blobs_erased(leaf: BlobsErasedLeaf, shown: Disclosure) -> Lines:
    yield "internal id", leaf.internal_id
    yield from _manifest(shown.manifest_sha256)
    yield "deletion", leaf.deletion_id
    yield "blobs erased", leaf.erased_at
    if shown.erased is not None:
        yield "  erased", f"{shown.erased.count} in {shown.erased.versions} versions"
        yield "  bytes", str(shown.erased.size_bytes)
    yield from _list("not erased", leaf.failures, shown.failures, str)


def _exported(leaf: ExportLeaf, shown: Disclosure) -> Lines:
    yield "model", shown.artifact_id or HIDDEN
    yield "internal id", leaf.internal_id
    yield from _manifest(shown.manifest_sha256)
    yield "export", leaf.export_id
    yield "organization", shown.organization_id or HIDDEN
    by = shown.exported.exported_by if shown.exported else HIDDEN
    yield "exported", f"{leaf.exported_at} by {by}"


def _case(leaf: CaseLeaf, shown: Disclosure) -> Lines:
    yield "case", leaf.case_id
    if leaf.artifact_id is not None:
        yield "began with", shown.artifact_id or HIDDEN
    yield "organization", shown.organization_id or HIDDEN
    yield "requested", f"{leaf.requested_at} by {shown.requested_by or HIDDEN}"
    yield "finished", leaf.finished_at
    yield "deleted", f"{leaf.count} members, each with a receipt of its own"
    if leaf.hidden:
        yield "partial", f"{leaf.hidden} of other projects belong to it and were not deleted"


def _manifest(digest: str | None) -> Lines:
    yield "manifest", f"sha256:{digest}" if digest else HIDDEN


def _list(
    name: str, held: ListCommitment, items: Sequence[T] | None, say: Callable[[T], str]
) -> Lines:
    """Yield a line for each item, or how many there are if they are not disclosed."""
    if items is not None:
        for item in items:
            yield f"  {name}", say(item)
    elif held.count:
        yield f"  {name}", f"{held.count}, {HIDDEN}"


def _worker(worker: FencedWorker) -> str:
    return f"{worker.worker} {worker.how}"


def _engine(engine: EvictedEngine) -> str:
    return f"{engine.engine} {engine.how}, {engine.aborted} aborted: {ENGINE_SAID[engine.how]}"


def _export(export: Export) -> str:
    return f"{export.exported_at} by {export.exported_by}"


def _key(erased_at: str, key: ErasedKey) -> Lines:
    yield "key erased", f"{erased_at}, {key.id} of shard {key.shard}"
    yield "  keyring", f"generation {key.generation_before} -> {key.generation_after}"
    yield "  method", key.method
    yield "  assurance", key.assurance


def _deletion_1(facts: DeletionFacts) -> Lines:
    yield facts.kind, facts.artifact_id
    yield from _manifest(facts.manifest_sha256)
    yield "deletion", facts.deletion_id
    yield "organization", facts.organization_id
    yield "requested", f"{facts.requested_at} by {facts.requested_by}"
    yield "committed", f"{facts.committed_at}, epoch {facts.epoch}"
    yield "fenced", facts.fenced_at
    for worker in facts.fence:
        yield "  worker", _worker(worker)
    yield "evicted", facts.evicted_at
    for engine in facts.engines:
        yield "  engine", _engine_1(engine)
    yield from _key(facts.key_erased_at, facts.key)
    yield "sealed blobs", f"{facts.blobs.count} ({facts.blobs.size_bytes} bytes)"
    for residual in facts.residuals:
        yield "remains", residual


def _engine_1(engine: format_1.EvictedEngine) -> str:
    # Format 1 says `zeroed` of every eviction: servers before 0.2 said so without having looked.
    zeroed = "weights said to be zeroed" if engine.zeroed else "weights not known to be zeroed"
    return f"{engine.engine} {engine.how}, {engine.aborted} aborted, {zeroed}"


def _blobs_erased_1(facts: BlobsErasedFacts) -> Lines:
    yield "artifact", facts.artifact_id
    yield from _manifest(facts.manifest_sha256)
    yield "deletion", facts.deletion_id
    yield "blobs erased", f"{facts.erased_at}: {facts.count} in {facts.versions} versions"
    yield "  bytes", str(facts.size_bytes)
    for name in facts.failures:
        yield "not erased", name

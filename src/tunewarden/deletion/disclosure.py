"""Builds a receipt's disclosure from the database: when a deletion is logged, and after a restore (D7, D10)."""

from collections.abc import Iterable, Sequence

from tunewarden.db.database import Tx
from tunewarden.deletion import lineage
from tunewarden.deletion.records import Deletion
from tunewarden.registry import artifacts, export_rows, exports
from tunewarden.registry.artifacts import ArtifactKind, SealedBlob
from tunewarden.registry.export_rows import Export
from tunewarden_receipts import leaf as leaves
from tunewarden_receipts import receipt
from tunewarden_receipts.deletion_case import CaseLeaf
from tunewarden_receipts.facts import FencedWorker, SealedBlobs
from tunewarden_receipts.leaf import (
    DeletionLeaf,
    Disclosure,
    EvictedEngine,
    ExportLeaf,
    FencedHost,
    opened,
)

# The only host so far: its workers acknowledge for it.
HOSTS = (FencedHost("local", "acknowledged"),)


def read_disclosure(tx: Tx, deletion: Deletion) -> Disclosure:
    """Return every stored value that the leaf of a deletion commits to."""
    return read_disclosures(tx, [deletion])[0]


def read_disclosures(tx: Tx, deletions: Sequence[Deletion]) -> list[Disclosure]:
    """Return what `read_disclosure` does, for each of these deletions."""
    numbers = [one.artifact_n for one in deletions]
    blobs = artifacts.blobs_of_each(tx, numbers)
    # Read after D4, when no export and no job can begin any more.
    exported = export_rows.exported_among(tx, numbers)
    learned = lineage.models_left(tx, numbers)
    found = []
    for n, one in zip(numbers, deletions, strict=True):
        exports_of = export_rows.of(tx, n) if n in exported else ()
        is_model = one.kind == ArtifactKind.MODEL
        found.append(disclosure_of(one, blobs[n], exports_of if is_model else None, learned[n]))
    return found


def disclosure_of(
    deletion: Deletion,
    blobs: Sequence[SealedBlob],
    exported: Sequence[Export] | None,
    learned: tuple[str, ...] | None = None,
) -> Disclosure:
    """Return a deletion's disclosure; `exported` is None if nobody looked, as for files, and `learned` likewise."""
    return Disclosure(
        salt=deletion.salt.hex(),
        artifact_id=deletion.artifact_id,
        organization_id=deletion.organization_id,
        requested_by=deletion.requested_by,
        manifest_sha256=deletion.manifest_sha256,
        blobs=SealedBlobs(len(blobs), sum(blob.sealed_bytes for blob in blobs)),
        hosts=HOSTS,
        fence=tuple(FencedWorker(one.worker, one.how.value) for one in deletion.fence_report or ()),
        engines=tuple(
            EvictedEngine(one.engine, one.how, one.aborted) for one in deletion.evict_report or ()
        ),
        exports=None if exported is None else tuple(map(exports.disclosed, exported)),
        lineage=learned,
    )


def opened_by(statement: bytes, candidate: Disclosure) -> Disclosure | None:
    """Return the part of a disclosure that a statement commits to; None for format 1, which has no commitments."""
    leaf = receipt.parse(statement)
    return opened(leaf, candidate) if isinstance(leaf, DeletionLeaf) else None


def asker(leaf: DeletionLeaf | CaseLeaf, salt: bytes, candidates: Iterable[str]) -> str | None:
    """Return which candidate requested a deletion or a case; None if none did."""
    for candidate in candidates:
        if opened(leaf, Disclosure(salt.hex(), requested_by=candidate)).requested_by:
            return candidate
    return None


def exporter(leaf: ExportLeaf, salt: bytes, candidates: Iterable[str]) -> str | None:
    """Return which candidate made an export; None if none did."""
    for candidate in candidates:
        shown = Disclosure(salt.hex(), exported=leaves.Export(leaf.exported_at, candidate))
        if opened(leaf, shown).exported:
            return candidate
    return None

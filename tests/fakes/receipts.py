"""Facts and receipts for tests: the ones that docs/receipt-format.md prints."""

from dataclasses import replace

from tunewarden.deletion import facts, merkle, receipt
from tunewarden.deletion.log_key import LogSigner

SEED = bytes(range(32))
SIGNER = LogSigner("log.tunewarden.example/1", SEED)

DELETION = facts.DeletionFacts(
    deletion_id="del_4nVxQz7LkT0cYp2WmRjB8sHd",
    organization_id="org_Zt5GqJw1KxN8bVfC3yPmR6aL",
    artifact_id="ft:tiny:acme:support:a1B2c3D4",
    internal_id="m_7pQxWz2RkVn4TtYc9LmGb1Hs",
    manifest_sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    requested_by="key_Vb6NmXq1WzTk3RpLy8GhJc5D",
    requested_at="2026-11-22T10:00:00.000000Z",
    committed_at="2026-11-22T10:00:00.001523Z",
    fenced_at="2026-11-22T10:00:00.003100Z",
    evicted_at="2026-11-22T10:00:00.004850Z",
    key_erased_at="2026-11-22T10:00:00.007411Z",
    epoch=4,
    fence=(
        facts.FencedWorker(worker="worker-0", how="released"),
        facts.FencedWorker(worker="worker-1", how="killed"),
    ),
    engines=(
        facts.EvictedEngine(engine="embedded", how="evicted", aborted=1, zeroed=True),
        facts.EvictedEngine(engine="vllm-0", how="restarted", aborted=0, zeroed=False),
    ),
    key=facts.ErasedKey(
        id="m_7pQxWz2RkVn4TtYc9LmGb1Hs",
        shard="shard-0",
        generation_before=41,
        generation_after=42,
        method="shard sealed anew without the key, old KEK and shard overwritten in place",
        assurance="filesystem",
    ),
    blobs=facts.SealedBlobs(count=2, size_bytes=8_405_221),
    residuals=("backup window: 30 days", "host RAM: best effort"),
    software="tunewarden 0.1.0",
)
BLOBS_ERASED = facts.BlobsErasedFacts(
    deletion_id=DELETION.deletion_id,
    artifact_id=DELETION.artifact_id,
    manifest_sha256=DELETION.manifest_sha256,
    erased_at="2026-11-22T10:00:02.500000Z",
    count=1,
    versions=3,
    size_bytes=8_404_992,
    failures=("blobs/9f/adapter_config.json.age",),
    software="tunewarden 0.1.0",
)


def envelopes(signer: LogSigner = SIGNER) -> list[bytes]:
    """Return the three entries of the example log: another deletion, this one, its blobs."""
    other = replace(DELETION, deletion_id="del_0other0deletion00000000", epoch=1)
    statements = [
        receipt.build_deletion(other),
        receipt.build_deletion(DELETION),
        receipt.build_blobs_erased(BLOBS_ERASED),
    ]
    return [receipt.sign(statement, signer) for statement in statements]


def receipts(signer: LogSigner = SIGNER) -> list[bytes]:
    """Return the receipts of the example log's entries, under its checkpoint of size 3."""
    entries = envelopes(signer)
    nodes = merkle.nodes_of([merkle.leaf_hash(entry) for entry in entries])
    size = len(entries)
    checkpoint = signer.sign_checkpoint(size, merkle.root(0, size, nodes))
    return [
        receipt.bundle(entry, index, merkle.inclusion_proof(index, size, nodes), checkpoint)
        for index, entry in enumerate(entries)
    ]

"""Facts and receipts for tests: the ones that docs/receipt-format.md prints."""

from dataclasses import replace

import rfc8785

from tunewarden.transparency.key import LogSigner
from tunewarden_receipts import facts, leaf, merkle, receipt
from tunewarden_receipts.key_hand_over import KeyHandOverLeaf
from tunewarden_receipts.statement import STATEMENT_TYPE

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


SALT = bytes(range(0x40, 0x60))
SHOWN = leaf.Disclosure(
    salt=SALT.hex(),
    artifact_id=DELETION.artifact_id,
    organization_id=DELETION.organization_id,
    requested_by=DELETION.requested_by,
    manifest_sha256=DELETION.manifest_sha256,
    blobs=DELETION.blobs,
    hosts=(leaf.FencedHost("host-0", "acknowledged"), leaf.FencedHost("host-1", "lease_ended")),
    fence=DELETION.fence,
    engines=(
        leaf.EvictedEngine("embedded", "zeroed", aborted=1),
        leaf.EvictedEngine("vllm-0", "restarted", aborted=0),
        leaf.EvictedEngine("vllm-1", "not_loaded", aborted=0),
    ),
    exports=(),
)
LEAF = leaf.DeletionLeaf.of(
    SHOWN,
    deletion_id=DELETION.deletion_id,
    internal_id=DELETION.internal_id,
    requested_at=DELETION.requested_at,
    committed_at=DELETION.committed_at,
    fenced_at=DELETION.fenced_at,
    evicted_at=DELETION.evicted_at,
    key_erased_at=DELETION.key_erased_at,
    epoch=DELETION.epoch,
    key=DELETION.key,
    memory="unswappable",
    residuals=DELETION.residuals,
    software="tunewarden 0.2.0",
)
ERASED_SHOWN = leaf.Disclosure(
    salt=SALT.hex(),
    manifest_sha256=DELETION.manifest_sha256,
    erased=leaf.ErasedBlobs(count=1, versions=3, size_bytes=8_404_992),
    failures=BLOBS_ERASED.failures,
)
ERASED_LEAF = leaf.BlobsErasedLeaf.of(
    ERASED_SHOWN,
    deletion_id=DELETION.deletion_id,
    internal_id=DELETION.internal_id,
    erased_at=BLOBS_ERASED.erased_at,
    software="tunewarden 0.2.0",
)


def statement_1(stated: facts.DeletionFacts | facts.BlobsErasedFacts) -> bytes:
    """Return the statement that a server before 0.1.1 made of these facts."""
    predicate = leaf.to_json(stated)
    digest = {"sha256": predicate.pop("manifestSha256")}
    subject = {"name": predicate.pop("artifactId"), "digest": digest}
    kind = predicate.pop("kind", None)
    what = "blobs-erased" if kind is None else f"{kind}-deletion"
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [subject],
            "predicateType": f"https://tunewarden.dev/{what}/v1",
            "predicate": predicate,
        }
    )


def envelopes(signer: LogSigner = SIGNER, *, form: int = 2) -> list[bytes]:
    """Return the three entries of an example log: another deletion, this one, its blobs."""
    if form == 1:
        other = replace(DELETION, deletion_id="del_0other0deletion00000000", epoch=1)
        statements = [statement_1(stated) for stated in (other, DELETION, BLOBS_ERASED)]
    else:
        another = replace(LEAF, deletion_id="del_0other0deletion00000000", epoch=1)
        statements = [receipt.build(one) for one in (another, LEAF, ERASED_LEAF)]
    return [receipt.sign(statement, signer) for statement in statements]


def receipts(signer: LogSigner = SIGNER, *, form: int = 2) -> list[bytes]:
    """Return the receipts of an example log's entries, under its checkpoint of size 3."""
    entries = envelopes(signer, form=form)
    nodes = merkle.nodes_of([merkle.leaf_hash(entry) for entry in entries])
    size = len(entries)
    checkpoint = signer.sign_checkpoint(size, merkle.root(0, size, nodes))
    shown = [None] * 3 if form == 1 else [SHOWN, SHOWN, ERASED_SHOWN]
    return [
        receipt.bundle(
            entry, index, merkle.inclusion_proof(index, size, nodes), checkpoint, shown[index]
        )
        for index, entry in enumerate(entries)
    ]


def hand_over(former: LogSigner, new: LogSigner, sequence: int = 1) -> KeyHandOverLeaf:
    return KeyHandOverLeaf(
        sequence=sequence,
        previous_key=former.vkey(),
        previous_key_id=former.key.digest(),
        new_key=new.vkey(),
        new_key_id=new.key.digest(),
        handed_over_at="2026-11-22T10:00:00.000000Z",
        software="tunewarden 0.2.0",
    )

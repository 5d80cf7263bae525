"""The facts in a receipt, and format 1: facts in plaintext, as logged before 0.1.1.

Format 1 is read for ever and written no more (see `leaf`): it names the model and who asked. A receipt says
these facts and nothing else (I17). They must hold no personal data: a log entry can never be erased.
"""

from dataclasses import dataclass
from functools import partial

from tunewarden_receipts.readers import (
    Reader,
    flag,
    identifier,
    integer,
    list_of,
    object_of,
    one_of,
    sha256,
    text,
    time,
)


@dataclass(frozen=True, slots=True)
class FencedWorker:
    """One worker that could have begun requests, and how it was fenced."""

    worker: str
    how: str  # one of WORKER_HOW


@dataclass(frozen=True, slots=True)
class EvictedEngine:
    """One engine that could have held the weights, and how it evicted them."""

    engine: str
    how: str  # one of ENGINE_HOW
    aborted: int  # running requests that were cut
    zeroed: bool  # whether it said that it overwrote the weights


@dataclass(frozen=True, slots=True)
class ErasedKey:
    """The erased key, the keyring's generations before and after, the method and its assurance."""

    id: str
    shard: str
    generation_before: int
    generation_after: int
    method: str
    assurance: str


@dataclass(frozen=True, slots=True)
class SealedBlobs:
    """The encrypted files that no key decrypts any more; their own erasure follows."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DeletionFacts:
    """A deletion as it was done up to the log (D1 to D6). Times are RFC 3339 text, UTC with microseconds."""

    deletion_id: str
    organization_id: str
    artifact_id: str
    internal_id: str
    manifest_sha256: str
    requested_by: str
    requested_at: str
    committed_at: str
    fenced_at: str
    evicted_at: str
    key_erased_at: str
    epoch: int
    fence: tuple[FencedWorker, ...]
    engines: tuple[EvictedEngine, ...]
    key: ErasedKey
    blobs: SealedBlobs
    residuals: tuple[str, ...]
    software: str
    kind: str = "model"  # what was deleted: the statement's type says it


@dataclass(frozen=True, slots=True)
class BlobsErasedFacts:
    """The erasure of a deleted artifact's blobs as it was done (D9); `failures` names what is left."""

    deletion_id: str
    artifact_id: str
    manifest_sha256: str
    erased_at: str
    count: int
    versions: int
    size_bytes: int
    failures: tuple[str, ...]
    software: str


WORKER_HOW = frozenset({"released", "killed", "gone"})
ENGINE_HOW = frozenset({"evicted", "not_running", "restarted"})


# Member of the JSON object -> its reader, in the order of the dataclass's fields.
# `artifactId` and `manifestSha256` are in the statement's subject, all others in its predicate.
WORKER = {"worker": identifier, "how": one_of(WORKER_HOW)}
_ENGINE = {"engine": identifier, "how": one_of(ENGINE_HOW), "aborted": integer, "zeroed": flag}
KEY = {
    "id": identifier,
    "shard": identifier,
    "generationBefore": integer,
    "generationAfter": integer,
    "method": text,
    "assurance": text,
}
BLOBS = {"count": integer, "sizeBytes": integer}
_ARTIFACT = {"artifactId": identifier}
_MANIFEST = {"manifestSha256": sha256}
_DELETION: dict[str, Reader] = {
    "deletionId": identifier,
    "organizationId": identifier,
    **_ARTIFACT,
    "internalId": identifier,
    **_MANIFEST,
    "requestedBy": identifier,
    "requestedAt": time,
    "committedAt": time,
    "fencedAt": time,
    "evictedAt": time,
    "keyErasedAt": time,
    "epoch": integer,
    "fence": list_of(object_of(FencedWorker, WORKER)),
    "engines": list_of(object_of(EvictedEngine, _ENGINE)),
    "key": object_of(ErasedKey, KEY),
    "blobs": object_of(SealedBlobs, BLOBS),
    "residuals": list_of(text),
    "software": text,
}
_BLOBS_ERASED: dict[str, Reader] = {
    "deletionId": identifier,
    **_ARTIFACT,
    **_MANIFEST,
    "erasedAt": time,
    "count": integer,
    "versions": integer,
    "sizeBytes": integer,
    "failures": list_of(identifier),
    "software": text,
}
# Predicate type -> the reader of its facts, after the subject's two members were added to the predicate's.
FORMAT_1: dict[str, Reader] = {
    "https://tunewarden.dev/model-deletion/v1": object_of(DeletionFacts, _DELETION),
    "https://tunewarden.dev/file-deletion/v1": object_of(
        partial(DeletionFacts, kind="file"), _DELETION
    ),
    "https://tunewarden.dev/blobs-erased/v1": object_of(BlobsErasedFacts, _BLOBS_ERASED),
}

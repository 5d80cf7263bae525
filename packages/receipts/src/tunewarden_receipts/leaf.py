"""Format 2: a leaf's public facts and commitments, and the disclosure in an Owner's receipt (I9, I17).

A leaf says when and how an artifact was deleted, or when its weights were exported, by the names that engines and the keyring know it by, which
mean nothing to a stranger. Its model id, its organization, who asked, and lists of any length are commitments. A
disclosure is the salt and the values: it is part of the receipt and never in the log.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, lru_cache, partial
from typing import Any

from tunewarden_receipts import deletion_case
from tunewarden_receipts.canonical import canonical
from tunewarden_receipts.commitments import ListCommitment, commit, commit_list
from tunewarden_receipts.deletion_case import CaseLeaf
from tunewarden_receipts.facts import BLOBS, KEY, WORKER, ErasedKey, FencedWorker, SealedBlobs
from tunewarden_receipts.readers import (
    Reader,
    identifier,
    integer,
    list_of,
    nullable,
    object_of,
    one_of,
    sha256,
    text,
    time,
)

HOST_HOW = frozenset({"acknowledged", "lease_ended"})
ENGINE_HOW = frozenset({"zeroed", "not_loaded", "restarted", "lease_ended"})
# Whether memory that held plain weights could be swapped to a disk (I16).
NOT_CHECKED = "not_checked"
MEMORY = frozenset({NOT_CHECKED, "unswappable", "swappable", "swap_accepted"})


@dataclass(frozen=True, slots=True)
class FencedHost:
    """One host that could have begun requests: it acknowledged the fence, or its lease ended."""

    host: str
    how: str  # one of HOST_HOW


@dataclass(frozen=True, slots=True)
class EvictedEngine:
    """One engine that could have held the weights, and what was observed."""

    engine: str
    how: str  # one of ENGINE_HOW
    aborted: int  # running requests that were cut


@dataclass(frozen=True, slots=True)
class Export:
    """One export of the plain weights, which a later deletion does not reach: when it was recorded, and by which key."""

    exported_at: str
    exported_by: str


@dataclass(frozen=True, slots=True)
class ErasedBlobs:
    """The encrypted files that were erased (D9)."""

    count: int
    versions: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Commitments:
    """What the leaf of a deletion commits to, except lists."""

    artifact_id: str
    organization_id: str
    requested_by: str
    blobs: str


@dataclass(frozen=True, slots=True)
class DeletionLeaf:
    """A deletion as it was done up to the log (D1 to D6). Times are RFC 3339 text, UTC with microseconds.

    `exports` and `lineage` are None where the server did not look.
    """

    deletion_id: str
    internal_id: str
    manifest_sha256: str  # a commitment, as all that is said of names
    commitments: Commitments
    requested_at: str
    committed_at: str
    fenced_at: str
    evicted_at: str
    key_erased_at: str
    epoch: int
    hosts: ListCommitment
    fence: ListCommitment
    engines: ListCommitment
    exports: ListCommitment | None
    lineage: ListCommitment | None
    key: ErasedKey
    memory: str  # one of MEMORY
    residuals: tuple[str, ...]
    software: str
    kind: str = "model"  # what was deleted: the statement's type says it

    @classmethod
    def of(cls, shown: "Disclosure", **facts: Any) -> "DeletionLeaf":
        """Return the leaf that commits to a disclosure's values and states `facts` publicly."""
        held = shown.commitments()
        named = Commitments(**{name: held.pop(name) for name in _COMMITMENTS})
        return cls(commitments=named, **{"exports": None, "lineage": None} | held | facts)


@dataclass(frozen=True, slots=True)
class BlobsErasedLeaf:
    """The erasure of a deleted artifact's blobs as it was done (D9); `failures` are those that are left."""

    deletion_id: str
    internal_id: str
    manifest_sha256: str
    erased: str
    erased_at: str
    failures: ListCommitment
    software: str

    @classmethod
    def of(cls, shown: "Disclosure", **facts: Any) -> "BlobsErasedLeaf":
        """Return the leaf that commits to a disclosure's values and states `facts` publicly."""
        return cls(**shown.commitments() | facts)


@dataclass(frozen=True, slots=True)
class ExportLeaf:
    """An export of plain weights, logged before their first byte was sent; `exported` commits to when and by whom."""

    export_id: str
    internal_id: str
    manifest_sha256: str
    artifact_id: str
    organization_id: str
    exported: str
    exported_at: str
    software: str

    @classmethod
    def of(cls, shown: "Disclosure", **facts: Any) -> "ExportLeaf":
        """Return the leaf that commits to a disclosure's values and states `facts` publicly."""
        return cls(**shown.commitments() | facts)


Leaf = DeletionLeaf | BlobsErasedLeaf | ExportLeaf | CaseLeaf


@dataclass(frozen=True, slots=True)
class Disclosure:
    """The salt (hex) and the values that it discloses. None: not disclosed."""

    salt: str
    artifact_id: str | None = None
    organization_id: str | None = None
    requested_by: str | None = None
    manifest_sha256: str | None = None
    blobs: SealedBlobs | None = None
    hosts: tuple[FencedHost, ...] | None = None
    fence: tuple[FencedWorker, ...] | None = None
    engines: tuple[EvictedEngine, ...] | None = None
    exports: tuple[Export, ...] | None = None
    lineage: tuple[str, ...] | None = None
    erased: ErasedBlobs | None = None
    failures: tuple[str, ...] | None = None
    exported: Export | None = None

    def commitments(self) -> dict[str, Any]:
        """Return the commitment to each value that is disclosed, by its field: in hex, or of a list."""
        salt = bytes.fromhex(self.salt)
        found: dict[str, Any] = {}
        for name in _COMMITMENTS_OF:
            value = getattr(self, name)
            if isinstance(value, tuple):
                items = [one if isinstance(one, str) else _as_text(one) for one in value]
                found[name] = commit_list(salt, _camel(name), items)
            elif value is not None:
                text = value if isinstance(value, str) else _as_text(value)
                found[name] = commit(salt, _camel(name), text)
        return found


_COMMITMENTS = tuple(field.name for field in fields(Commitments))
_COMMITMENTS_OF = tuple(field.name for field in fields(Disclosure))[1:]


def committed(leaf: Leaf) -> dict[str, Any]:
    """Return everything that a leaf commits to, by the disclosure's field."""
    if isinstance(leaf, BlobsErasedLeaf):
        names: tuple[str, ...] = ("manifest_sha256", "erased", "failures")
        return {name: getattr(leaf, name) for name in names}
    if isinstance(leaf, ExportLeaf):
        names = ("manifest_sha256", "artifact_id", "organization_id", "exported")
        return {name: getattr(leaf, name) for name in names}
    if isinstance(leaf, CaseLeaf):
        names = ("artifact_id", "organization_id", "requested_by")
        return {name: getattr(leaf, name) for name in names}
    named = {name: getattr(leaf.commitments, name) for name in _COMMITMENTS}
    lists = ("manifest_sha256", "hosts", "fence", "engines", "exports", "lineage")
    return named | {name: getattr(leaf, name) for name in lists}


def opened(leaf: Leaf, candidate: Disclosure) -> Disclosure:
    """Return a disclosure without the values that the leaf does not commit to."""
    holds = committed(leaf)
    found = candidate.commitments()
    wrong = {name: None for name, held in found.items() if holds.get(name) != held}
    return replace(candidate, **wrong)  # type: ignore[arg-type]  # each of these fields may be None


def check_disclosure(leaf: Leaf, disclosure: Disclosure) -> None:
    """Check that the leaf commits to every disclosed value. Raises `ValueError`."""
    if opened(leaf, disclosure) != disclosure:
        raise ValueError("a value is not the one that the log's entry commits to")


def to_json(value: Any) -> Any:
    """Return the JSON form of facts: members in camel case, tuples as lists."""
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    members = _members(value.__class__)
    if members is None:
        return value
    return {member: to_json(getattr(value, name)) for name, member in members}


def disclosure_json(disclosure: Disclosure) -> dict[str, Any]:
    """Return the JSON form of a disclosure: without the members that are not disclosed."""
    return {name: value for name, value in to_json(disclosure).items() if value is not None}


def read_disclosure(value: object) -> Disclosure:
    """Return a disclosure from parsed JSON; `ValueError` for another form."""
    if not isinstance(value, dict) or "salt" not in value or not value.keys() <= _DISCLOSURE.keys():
        raise ValueError("a disclosure has other members than this format")
    found: list[Any] = [
        reader(value[name]) if name in value else None for name, reader in _DISCLOSURE.items()
    ]
    return Disclosure(*found)


@cache
def _members(kind: type) -> tuple[tuple[str, str], ...] | None:
    """Return a dataclass's fields, each with its member of the JSON object; None for another type."""
    if not is_dataclass(kind):
        return None
    return tuple((field.name, _camel(field.name)) for field in fields(kind))


# Deletions of a group commit to the same hosts and engines: each is encoded once.
@lru_cache(maxsize=256)
def _as_text(value: Any) -> str:
    """Return facts as canonical JSON."""
    return canonical(to_json(value)).decode()


@cache
def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


# Member of the JSON object -> its reader, in the order of the dataclass's fields. `internalId` and
# `manifestSha256` are in the statement's subject, all others in its predicate.
_LIST = object_of(ListCommitment, {"count": integer, "root": sha256})
_SUBJECT: dict[str, Reader] = {"internalId": identifier, "manifestSha256": sha256}
_COMMITTED = {
    "artifactId": sha256,
    "organizationId": sha256,
    "requestedBy": sha256,
    "blobs": sha256,
}
_DELETION: dict[str, Reader] = {
    "deletionId": identifier,
    **_SUBJECT,
    "commitments": object_of(Commitments, _COMMITTED),
    "requestedAt": time,
    "committedAt": time,
    "fencedAt": time,
    "evictedAt": time,
    "keyErasedAt": time,
    "epoch": integer,
    "hosts": _LIST,
    "fence": _LIST,
    "engines": _LIST,
    "exports": nullable(_LIST),
    "lineage": nullable(_LIST),
    "key": object_of(ErasedKey, KEY),
    "memory": one_of(MEMORY),
    "residuals": list_of(text),
    "software": text,
}
_BLOBS_ERASED: dict[str, Reader] = {
    "deletionId": identifier,
    **_SUBJECT,
    "erased": sha256,
    "erasedAt": time,
    "failures": _LIST,
    "software": text,
}
_EXPORTED: dict[str, Reader] = {
    "exportId": identifier,
    **_SUBJECT,
    "artifactId": sha256,
    "organizationId": sha256,
    "exported": sha256,
    "exportedAt": time,
    "software": text,
}
_HOST = {"host": identifier, "how": one_of(HOST_HOW)}
_ENGINE = {"engine": identifier, "how": one_of(ENGINE_HOW), "aborted": integer}
_EXPORT = {"exportedAt": time, "exportedBy": identifier}
_ERASED = {"count": integer, "versions": integer, "sizeBytes": integer}
_DISCLOSURE: dict[str, Callable[[object], Any]] = {
    "salt": sha256,
    "artifactId": identifier,
    "organizationId": identifier,
    "requestedBy": identifier,
    "manifestSha256": sha256,
    "blobs": object_of(SealedBlobs, BLOBS),
    "hosts": list_of(object_of(FencedHost, _HOST)),
    "fence": list_of(object_of(FencedWorker, WORKER)),
    "engines": list_of(object_of(EvictedEngine, _ENGINE)),
    "exports": list_of(object_of(Export, _EXPORT)),
    "lineage": list_of(identifier),
    "erased": object_of(ErasedBlobs, _ERASED),
    "failures": list_of(identifier),
    "exported": object_of(Export, _EXPORT),
}
# Predicate type -> the reader of its leaf, after the subject's two members were added to the predicate's.
FORMAT_2: dict[str, Reader] = {
    "https://tunewarden.dev/model-deletion/v2": object_of(DeletionLeaf, _DELETION),
    "https://tunewarden.dev/file-deletion/v2": object_of(
        partial(DeletionLeaf, kind="file"), _DELETION
    ),
    "https://tunewarden.dev/blobs-erased/v2": object_of(BlobsErasedLeaf, _BLOBS_ERASED),
    "https://tunewarden.dev/model-export/v2": object_of(ExportLeaf, _EXPORTED),
    deletion_case.PREDICATE_TYPE: object_of(CaseLeaf, deletion_case.READERS),
}

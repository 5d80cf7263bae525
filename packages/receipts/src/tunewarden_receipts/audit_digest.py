"""Digests of an audit log: what makes a missing or changed event visible.

Each event has one line, its canonical JSON, which exports have too. A part is a run of an organization's events: a
count and the Merkle root over their lines. The log's leaf holds the root over the commitments to all organizations'
parts, each under a salt of its own, so that it says neither which organizations there are nor what they did.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunewarden_receipts import merkle
from tunewarden_receipts.commitments import commit
from tunewarden_receipts.readers import Reader, integer, sha256, text, time

PREDICATE_TYPE = "https://tunewarden.dev/audit-digest/v2"
SUBJECT = "audit-digest-"
_MEMBER = "auditPart"


@dataclass(frozen=True, slots=True)
class AuditDigestLeaf:
    """The digest of every organization's events since the one before; `sequence` counts digests from 1."""

    sequence: int
    root: str  # of `digest_root`, in hex
    digested_at: str
    software: str


@dataclass(frozen=True, slots=True)
class AuditPart:
    """A run of an organization's events; `number` counts its parts from 1.

    `previous` is the commitment to the part before, in hex: no part can be taken out. `root` is of `events_root`.
    """

    organization_id: str
    number: int
    events: int
    root: str
    previous: str | None

    def commitment(self, salt: bytes) -> str:
        """Return the commitment to this part, in hex."""
        said = {
            "organizationId": self.organization_id,
            "number": self.number,
            "events": self.events,
            "root": self.root,
            "previous": self.previous,
        }
        return commit(salt, _MEMBER, said)


def event_hash(line: bytes) -> bytes:
    """Return the hash of an event's line, which does not end with a newline. RFC 6962 §2.1."""
    return merkle.leaf_hash(line)


def events_root(hashes: Sequence[bytes]) -> str:
    """Return the root over events' hashes, oldest first, in hex. RFC 6962 §2.1."""
    return merkle.root(0, len(hashes), merkle.nodes_of(hashes)).hex()


def digest_root(commitments: Iterable[str]) -> str:
    """Return the root over commitments to parts, in hex; they are sorted, so that their order says nothing."""
    hashes = [merkle.leaf_hash(bytes.fromhex(one)) for one in sorted(commitments)]
    return merkle.root(0, len(hashes), merkle.nodes_of(hashes)).hex()


def digest_path(commitments: Iterable[str], own: str) -> list[tuple[bool, bytes]]:
    """Return what leads from one of a digest's commitments to its root; of the others it tells no number."""
    ordered = sorted(commitments)
    hashes = [merkle.leaf_hash(bytes.fromhex(one)) for one in ordered]
    return merkle.sided_path(ordered.index(own), len(hashes), merkle.nodes_of(hashes))


def root_by_path(own: str, path: Sequence[tuple[bool, bytes]]) -> str:
    """Return the root that a commitment and its `digest_path` lead to, in hex."""
    return merkle.root_of_path(merkle.leaf_hash(bytes.fromhex(own)), path).hex()


READERS: dict[str, Reader] = {
    "sequence": integer,
    "root": sha256,
    "digestedAt": time,
    "software": text,
}

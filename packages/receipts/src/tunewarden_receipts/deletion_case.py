"""The summary of a case: deletions that were committed together. It commits to each member's entry of the log.

With the receipts of the members and of the summary anyone can check that they are all: `cases.check_members`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tunewarden_receipts.commitments import ListCommitment, commit_list
from tunewarden_receipts.readers import Reader, identifier, integer, nullable, sha256, text, time

PREDICATE_TYPE = "https://tunewarden.dev/deletion-case/v2"
_MEMBERS = "members"


@dataclass(frozen=True, slots=True)
class CaseLeaf:
    """A case whose `count` members are all deleted. `root` is of `members_commitment`, in hex.

    `artifact_id` commits to what the case began with, None for a list. `hidden`: how many artifacts belong to it that stay,
    because who asked might not see them.
    """

    case_id: str
    root: str
    artifact_id: str | None
    organization_id: str
    requested_by: str
    count: int
    hidden: int
    requested_at: str
    finished_at: str
    software: str


def members_commitment(salt: bytes, entries: Iterable[bytes]) -> ListCommitment:
    """Return the commitment to the leaf hashes of the members' entries; they are sorted."""
    return commit_list(salt, _MEMBERS, sorted(entry.hex() for entry in entries))


READERS: dict[str, Reader] = {
    "caseId": identifier,
    "root": sha256,
    "artifactId": nullable(sha256),
    "organizationId": sha256,
    "requestedBy": sha256,
    "count": integer,
    "hidden": integer,
    "requestedAt": time,
    "finishedAt": time,
    "software": text,
}

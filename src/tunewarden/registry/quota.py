"""Storage quotas of projects and organizations, in bytes of ciphertext: artifacts and drafts (§18).

Bytes are reserved before they are written: a draft reserves in steps, so that two
concurrent uploads cannot both take the rest.
"""

from dataclasses import dataclass

from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind

# A draft reserves this much at a time, or what is left: few transactions for a large file.
STEP_BYTES = 8 * 1024 * 1024
FIRST_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits in bytes; an organization's covers all its projects."""

    project_bytes_max: int
    organization_bytes_max: int

    def grant(self, tx: Tx, project_id: str, needed: int, wanted: int) -> int:
        """Return how many bytes may be reserved, from `needed` to `wanted`. Raises Error(QUOTA_EXCEEDED)."""
        in_project, in_organization = used_bytes(tx, project_id)
        left = min(
            self.project_bytes_max - in_project, self.organization_bytes_max - in_organization
        )
        if left < needed:
            raise self._exceeded(in_project, in_organization, needed)
        return min(left, wanted)

    def _exceeded(self, in_project: int, in_organization: int, needed: int) -> Error:
        whose, used, most = "project", in_project, self.project_bytes_max
        if self.organization_bytes_max - in_organization < self.project_bytes_max - in_project:
            whose, used, most = "organization", in_organization, self.organization_bytes_max
        return Error(
            Kind.QUOTA_EXCEEDED,
            f"You exceeded your storage quota: {used} of the {most} bytes of this {whose} are in use or reserved by"
            f" unfinished uploads, and this request needs {needed} more. Delete files or models, or ask the operator"
            " for a higher limit.",
            code="storage_quota_exceeded",
        )


def used_bytes(tx: Tx, project_id: str) -> tuple[int, int]:
    """Return the bytes used by a project, and by its organization."""
    row = tx.row(
        "SELECT COALESCE((SELECT s.bytes FROM stored_bytes s WHERE s.project_id = p.id), 0)"
        " + (SELECT COALESCE(SUM(d.bytes), 0) FROM drafts d WHERE d.project_id = p.id),"
        " (SELECT COALESCE(SUM(s.bytes), 0) FROM stored_bytes s WHERE s.organization_id = p.organization_id)"
        " + (SELECT COALESCE(SUM(d.bytes), 0) FROM drafts d WHERE d.project_id IN"
        "   (SELECT o.id FROM projects o WHERE o.organization_id = p.organization_id))"
        " FROM projects p WHERE p.id = :project",
        project=project_id,
    )
    assert row is not None, "projects are never removed"
    return int(row[0]), int(row[1])


def add_stored(tx: Tx, project_id: str, organization_id: str, size: int) -> None:
    """Add the bytes of a new artifact, in the transaction that registers it."""
    tx.run(
        "INSERT INTO stored_bytes VALUES (:project, :organization, :bytes)"
        " ON CONFLICT (project_id) DO UPDATE SET bytes = stored_bytes.bytes + excluded.bytes",
        project=project_id,
        organization=organization_id,
        bytes=size,
    )


def take_off_stored(tx: Tx, artifact_n: int) -> None:
    """Subtract the bytes of an artifact, in the transaction that sets it to `deleted` (D8)."""
    tx.run(
        "UPDATE stored_bytes SET bytes = bytes"
        " - (SELECT COALESCE(SUM(b.sealed_bytes), 0) FROM blobs b WHERE b.artifact_n = :n)"
        " WHERE project_id = (SELECT a.project_id FROM artifacts a WHERE a.n = :n)",
        n=artifact_n,
    )

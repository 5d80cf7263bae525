"""Quotas of projects and organizations (§18): bytes of ciphertext, of artifacts and drafts; files and models by number.

Bytes are reserved before they are written: a draft reserves in steps, so that two
concurrent uploads cannot both take the rest. The server's settings are the most that a project may have; an
administrator may set less for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden.db import lists
from tunewarden.db.database import Row, Tx
from tunewarden.errors import Error, Kind

# A draft reserves this much at a time, or what is left: few transactions for a large file.
STEP_BYTES = 8 * 1024 * 1024
FIRST_BYTES = 256 * 1024
# And never more than this part of what is left, unless it needs it: what one does not use must not refuse others.
PART_OF_REST = 16


@dataclass(frozen=True, slots=True)
class ProjectQuota:
    """How many bytes, files and models a project may have, or has; checkpoints are models."""

    bytes: int
    files: int
    models: int


@dataclass(frozen=True, slots=True)
class QuotaChange:
    """A change of a project's quota; None leaves what it is."""

    bytes: int | None
    files: int | None
    models: int | None


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that each project may have; `organization_bytes_max` covers all projects of an organization."""

    of_project: ProjectQuota
    organization_bytes_max: int

    def grant(self, tx: Tx, project_id: str, needed: int, wanted: int) -> int:
        """Return how many bytes are granted: `needed`, and up to `wanted` where plenty is left. Raises Error(QUOTA_EXCEEDED)."""
        in_project, in_organization = used_bytes(tx, project_id)
        project_bytes_max = self.of(tx, project_id).bytes
        left = min(project_bytes_max - in_project, self.organization_bytes_max - in_organization)
        if left < needed:
            raise self._exceeded(project_bytes_max, in_project, in_organization, needed)
        return max(needed, min(left // PART_OF_REST, wanted))

    def of(self, tx: Tx, project_id: str) -> ProjectQuota:
        """Return the quota of a project."""
        row = tx.row(
            "SELECT bytes, files, models FROM project_quotas WHERE project_id = :project",
            project=project_id,
        )
        most = self.of_project
        return most if row is None else _within(most, row)

    def change(self, tx: Tx, project_id: str, change: QuotaChange) -> tuple[ProjectQuota, bool]:
        """Set the quota of a project, at most the server's; return what it is then, and whether anything changed."""
        before = tx.row(
            "SELECT bytes, files, models FROM project_quotas WHERE project_id = :project",
            project=project_id,
        )
        row = tx.row(
            "INSERT INTO project_quotas VALUES (:project, :bytes, :files, :models)"
            " ON CONFLICT (project_id) DO UPDATE SET bytes = COALESCE(excluded.bytes, project_quotas.bytes),"
            " files = COALESCE(excluded.files, project_quotas.files),"
            " models = COALESCE(excluded.models, project_quotas.models) RETURNING bytes, files, models",
            project=project_id,
            bytes=change.bytes,
            files=change.files,
            models=change.models,
        )
        assert row is not None, "it was inserted or updated"
        return _within(self.of_project, row), row != (before or (None, None, None))

    def check_room_for_file(self, tx: Tx, project_id: str, *, is_registered: bool = False) -> None:
        """Check that a project may have one more file, which may be registered just now. Raises Error(QUOTA_EXCEEDED)."""
        has = _counts(tx, project_id)[0] - int(is_registered)
        _check("files", has, self.of(tx, project_id).files)

    def check_room_for_model(self, tx: Tx, project_id: str, *, coming: int = 0) -> None:
        """Check that a project may have one more model beside those that are `coming`. Raises Error(QUOTA_EXCEEDED)."""
        _check("models", _counts(tx, project_id)[1], self.of(tx, project_id).models, coming)

    def _exceeded(
        self, project_bytes_max: int, in_project: int, in_organization: int, needed: int
    ) -> Error:
        whose, used, most = "project", in_project, project_bytes_max
        if self.organization_bytes_max - in_organization < project_bytes_max - in_project:
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


def used(tx: Tx, project_id: str) -> ProjectQuota:
    """Return what a project has, reserved bytes included."""
    return ProjectQuota(used_bytes(tx, project_id)[0], *_counts(tx, project_id))


def add_stored(tx: Tx, project_id: str, organization_id: str, size: int, *, is_file: bool) -> None:
    """Count a new artifact and its bytes, in the transaction that registers it."""
    tx.run(
        "INSERT INTO stored_bytes (project_id, organization_id, bytes, files, models)"
        " VALUES (:project, :organization, :bytes, :files, :models)"
        " ON CONFLICT (project_id) DO UPDATE SET bytes = stored_bytes.bytes + excluded.bytes,"
        " files = stored_bytes.files + excluded.files, models = stored_bytes.models + excluded.models",
        project=project_id,
        organization=organization_id,
        bytes=size,
        files=int(is_file),
        models=int(not is_file),
    )


def take_off_stored(tx: Tx, numbers: Sequence[int]) -> None:
    """Count artifacts and their bytes no more, in the transaction that sets them to `deleted` (D8)."""
    for listed, values in lists.parts(numbers):
        tx.run(
            "UPDATE stored_bytes SET bytes = bytes - (SELECT COALESCE(SUM(b.sealed_bytes), 0) FROM artifacts a"
            f" JOIN blobs b ON b.artifact_n = a.n WHERE a.n IN ({listed}) AND a.project_id = stored_bytes.project_id),"
            f" files = files - (SELECT COUNT(*) FROM artifacts a WHERE a.n IN ({listed}) AND a.project_id = stored_bytes.project_id AND a.kind = 'file'),"
            f" models = models - (SELECT COUNT(*) FROM artifacts a WHERE a.n IN ({listed}) AND a.project_id = stored_bytes.project_id AND a.kind = 'model')"
            f" WHERE project_id IN (SELECT a.project_id FROM artifacts a WHERE a.n IN ({listed}))",
            **values,
        )


def _counts(tx: Tx, project_id: str) -> tuple[int, int]:
    """Return how many files and models a project has."""
    row = tx.row(
        "SELECT files, models FROM stored_bytes WHERE project_id = :project", project=project_id
    )
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def _check(what: str, has: int, allowed: int, coming: int = 0) -> None:
    if has + coming < allowed:
        return
    expected = f" and unfinished jobs will make {coming} more" if coming else ""
    raise Error(
        Kind.QUOTA_EXCEEDED,
        f"You exceeded your quota of {what}: this project has {has} of {allowed}{expected}. Delete {what}, or ask an"
        " administrator of your organization for a higher quota.",
        code=f"{what}_quota_exceeded",
    )


def _within(most: ProjectQuota, row: Row) -> ProjectQuota:
    chosen = [
        least if one is None else min(int(one), least)
        for one, least in zip(row, (most.bytes, most.files, most.models), strict=True)
    ]
    return ProjectQuota(*chosen)

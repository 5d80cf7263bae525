"""Types of request and response bodies, for the OpenAPI document: deletions, their plans, and holds. See `schemas`."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from tunewarden.api.schemas import DeletionStatus, Fraction, Seconds
from tunewarden.deletion.reports import EngineReport
from tunewarden.serving.fence import FencedWorker


class Blocker(Struct, forbid_unknown_fields=True):
    """What blocks a deletion of an artifact; `force` overrides it if it is `forcible`."""

    type: str
    id: str
    artifact: str
    forcible: bool


class DeletionPlan(Struct, forbid_unknown_fields=True):
    """What deleting a `model` or a `file` would also delete, and what blocks it; `bytes` is the size of the sealed blobs.

    `fingerprint` changes when any of this does: sent as `If-Match` with the deletion, it must still hold.
    """

    object: Literal["model.deletion_plan", "file.deletion_plan"]
    checkpoints: list[str]
    blobs: int
    bytes: int
    blockers: list[Blocker]
    derived_files: list[str]
    fingerprint: str
    model: str | UnsetType = UNSET
    file: str | UnsetType = UNSET


class DeleteAnswer(Struct, forbid_unknown_fields=True):
    """Confirms the deletion of a model or a file; the header `tunewarden-deletion` holds the deletion's id.

    To a dry run, `deleted` is false, and `plan` says what would be deleted.
    """

    id: str
    object: str
    deleted: bool
    plan: DeletionPlan | UnsetType = UNSET


class Deletion(Struct, forbid_unknown_fields=True):
    """A deletion of a `model` or a `file`; the time of a step that is not done yet is null.

    `step_seconds` has, by step (`fence` is D4, `erase_blobs` D9), the time from the end of the step before it.
    """

    id: str
    object: str
    parent: str | None
    status: DeletionStatus
    requested_by: str
    requested_at: Fraction
    fenced_at: Fraction | None
    evicted_at: Fraction | None
    key_erased_at: Fraction | None
    logged_at: Fraction | None
    deleted_at: Fraction | None
    blobs_erased_at: Fraction | None
    step_seconds: dict[str, float]
    fence: tuple[FencedWorker, ...]
    engines: tuple[EngineReport, ...]
    log_index: int | None
    blobs_log_index: int | None
    model: str | UnsetType = UNSET
    file: str | UnsetType = UNSET


class NewHold(Struct, forbid_unknown_fields=True):
    """A hold on a `model` or on a `file`."""

    reason: str
    model: str | None = None
    file: str | None = None


class Hold(Struct, forbid_unknown_fields=True):
    """A hold: while it is `in_force`, nothing deletes its `model` or `file`. `reason` is null once that is deleted."""

    id: str
    object: Literal["hold"]
    in_force: bool
    reason: str | None
    placed_by: str
    placed_at: Seconds
    lifted_by: str | None
    lifted_at: Seconds | None
    model: str | UnsetType = UNSET
    file: str | UnsetType = UNSET

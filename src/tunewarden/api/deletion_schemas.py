"""Types of request and response bodies, for the OpenAPI document: deletions, their plans, and holds. See `schemas`."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from tunewarden.api.schemas import (
    DeletionStatus,
    EngineOfModel,
    Fraction,
    ModelUsage,
    Seconds,
)
from tunewarden.deletion.case_rows import CaseStatus
from tunewarden.deletion.reports import EngineReport
from tunewarden.serving.fence import FencedWorker


class Blocker(Struct, forbid_unknown_fields=True):
    """What blocks a deletion of an artifact; `force` overrides it if it is `forcible`."""

    type: str
    id: str
    artifact: str
    forcible: bool


class Learned(Struct, forbid_unknown_fields=True):
    """Everything that learned from a file: what `?cascade=models` would delete with it, and what blocks that.

    `jobs` have not ended: they are cancelled. `declared` are those of the ids above that only an Owner's `trained_on`
    names. `hidden` of other projects belong to it too: they stay, and `hidden_jobs` of other projects are cancelled.
    `whole` is false if there is more than one case can delete. `blobs` and `bytes` are of the members.
    """

    models: list[str]
    checkpoints: list[str]
    files: list[str]
    jobs: list[str]
    declared: list[str]
    deleting: int
    hidden: int
    hidden_jobs: int
    whole: bool
    blobs: int
    bytes: int
    blockers: list[Blocker]


class Export(Struct, forbid_unknown_fields=True):
    """An export of a model's plain files, which no deletion reaches; `exported_by` is the id of an API key."""

    id: str
    object: Literal["model.export"]
    model: str
    exported_at: Fraction
    exported_by: str


class DeletionPlan(Struct, forbid_unknown_fields=True):
    """What deleting a `model` or a `file` would also delete, what would stay, and what blocks it.

    `bytes` is the size of the sealed blobs. With `force`, `aliases` lose the model and `jobs` are cancelled. What stays:
    `derived_files` and `exports`. Of models: `usage`, and `engines` of the base with what each says of the model.
    `learned`, of a file, says what deleting it with `?cascade=models` would delete. `fingerprint` changes when any of
    this does except use and engines: sent as `If-Match` with the deletion, it must still hold.
    """

    object: Literal["model.deletion_plan", "file.deletion_plan"]
    checkpoints: list[str]
    blobs: int
    bytes: int
    blockers: list[Blocker]
    derived_files: list[str]
    aliases: list[str]
    jobs: list[str]
    exports: list[Export]
    fingerprint: str
    model: str | UnsetType = UNSET
    file: str | UnsetType = UNSET
    usage: ModelUsage | UnsetType = UNSET
    engines: list[EngineOfModel] | UnsetType = UNSET
    learned: Learned | UnsetType = UNSET


class CaseOutcome(Struct, forbid_unknown_fields=True):
    """A finished case, in the answer to the request that it began with."""

    id: str
    status: CaseStatus
    members: int
    hidden: int


class DeleteAnswer(Struct, forbid_unknown_fields=True):
    """Confirms the deletion of a model or a file; the header `tunewarden-deletion` holds the deletion's id.

    To a dry run, `deleted` is false, and `plan` says what would be deleted. With `?cascade=models`, `deletion_case` is what
    was deleted together: `partial` if some of it belongs to other projects and stays.
    """

    id: str
    object: str
    deleted: bool
    plan: DeletionPlan | UnsetType = UNSET
    deletion_case: CaseOutcome | UnsetType = UNSET


class CaseMember(Struct, forbid_unknown_fields=True):
    """A member of a case: the deletion of a `model` or a `file`."""

    deletion: str
    object: str
    status: DeletionStatus
    deleted_at: Fraction | None
    blobs_erased_at: Fraction | None
    log_index: int | None
    model: str | UnsetType = UNSET
    file: str | UnsetType = UNSET


class DeletionCase(Struct, forbid_unknown_fields=True):
    """Deletions that were committed together. `file` is what it began with.

    `status`: `complete` when all members are deleted and the summary is in the log; `partial` instead if `hidden` members
    of other projects stay. A list of cases has no `data`, which are the members.
    """

    id: str
    object: Literal["deletion.case"]
    status: CaseStatus
    members: int
    hidden: int
    requested_by: str
    requested_at: Fraction
    finished_at: Fraction | None
    log_index: int | None
    file: str | UnsetType = UNSET
    data: list[CaseMember] | UnsetType = UNSET


class Deletion(Struct, forbid_unknown_fields=True):
    """A deletion of a `model` or a `file`; the time of a step that is not done yet is null.

    `step_seconds` has, by step (`fence` is D4, `erase_blobs` D9), the time from the end of the step before it.
    If the server died before it stored `logged_at`, that is when it found the leaf at its next start.
    It stays null if a restored server learned of the deletion from the log.
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
    """A hold: while it is `in_force`, nothing deletes its `model` or `file`.

    `reason` is null once that is deleted, and for who is no Owner.
    """

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


class Relative(Struct, forbid_unknown_fields=True):
    """A model, checkpoint, file or job of a lineage; of a deleted one only `id` and `state`.

    `via` is the next one on the way to what was asked about. `declared`: only an Owner's `trained_on` says so.
    """

    id: str
    state: str
    object: str | UnsetType = UNSET
    via: str | UnsetType = UNSET
    declared: bool | UnsetType = UNSET


class LineageDirection(Struct, forbid_unknown_fields=True):
    """Relatives, nearest first; `hidden` of other projects are only counted. `whole`: nothing was left out."""

    data: list[Relative]
    hidden: int
    whole: bool


class ModelLineage(Struct, forbid_unknown_fields=True):
    """What a model learned from (`up`), and what learned from it (`down`)."""

    object: Literal["model.lineage"]
    model: str
    up: LineageDirection
    down: LineageDirection


class FileLineage(Struct, forbid_unknown_fields=True):
    """What a file was made from (`up`), and what was made from it or learned from it (`down`)."""

    object: Literal["file.lineage"]
    file: str
    up: LineageDirection
    down: LineageDirection

"""Types of request and response bodies, for the OpenAPI document: bulk deletions. See `schemas`."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from tunewarden.api.schemas import Problem, Seconds
from tunewarden.deletion.bulk.results import Outcome


class Filter(Struct, forbid_unknown_fields=True):
    """Which models: those that are all that it says. `suffix` may have `*` and `?`.

    `keep_latest` spares the newest active ones with the same base and suffix in a project. A model that was never used
    counts as used when it was made.
    """

    base: str | None = None
    suffix: str | None = None
    project: str | None = None
    older_than_days: int | None = None
    unused_for_days: int | None = None
    keep_latest: int | None = None


class NewDeletions(Struct, forbid_unknown_fields=True):
    """What to delete: the `ids` of models and files, or the models that a `filter` chooses."""

    ids: list[str] | None = None
    filter: Filter | None = None


class Reason(Struct, forbid_unknown_fields=True):
    """Why: a code for programs, and a sentence."""

    code: str
    message: str


class DeletionResult(Struct, forbid_unknown_fields=True):
    """What became of one model or file; in a dry run, what would.

    `created_at` and `last_used_at` are those of a model that a filter or a rule saw. `checkpoints`: in a dry run or a
    preview, those that would go with the model.
    """

    object: Literal["deletion.result"]
    outcome: Outcome
    reasons: list[Reason]
    model: str | UnsetType = UNSET
    file: str | UnsetType = UNSET
    deletion: str | UnsetType = UNSET
    due_at: Seconds | UnsetType = UNSET
    created_at: Seconds | UnsetType = UNSET
    last_used_at: Seconds | UnsetType | None = UNSET
    checkpoints: list[str] | UnsetType = UNSET


class DeletionSummary(Struct, forbid_unknown_fields=True):
    """The last line. `counts` has how many had each outcome; `stopped` is why the rest, `left`, was not looked at.

    `has_more`: more was chosen than one request deletes. `fingerprint`: of a dry run or a preview, to send as
    `If-Match`.
    """

    object: Literal["deletion.summary"]
    id: str | None
    dry_run: bool
    counts: dict[str, int]
    left: int
    stopped: Problem | None
    has_more: bool
    fingerprint: str | UnsetType = UNSET

"""Types of request and response bodies, for the OpenAPI document: retention. See `schemas`."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from tunewarden.api.schemas import Seconds
from tunewarden.registry.retention_pause import PauseReason
from tunewarden.registry.retention_rules import RuleAction


class NewRule(Struct, forbid_unknown_fields=True):
    """A rule: what it chooses, as a bulk deletion's filter does, and what it does with it.

    At least one of `older_than_days`, `unused_for_days` and `keep_latest`. `notice_days`: how long before a deletion it is
    announced, 7 if it is omitted. A rule runs each hour once it is `enabled`.
    """

    action: RuleAction
    base: str | None = None
    suffix: str | None = None
    project: str | None = None
    older_than_days: int | None = None
    unused_for_days: int | None = None
    keep_latest: int | None = None
    notice_days: int | None = None
    enabled: bool = False


class RuleChanges(Struct, forbid_unknown_fields=True):
    """What to change of a rule; null removes a criterion."""

    action: RuleAction | UnsetType = UNSET
    base: str | UnsetType | None = UNSET
    suffix: str | UnsetType | None = UNSET
    project: str | UnsetType | None = UNSET
    older_than_days: int | UnsetType | None = UNSET
    unused_for_days: int | UnsetType | None = UNSET
    keep_latest: int | UnsetType | None = UNSET
    notice_days: int | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class Rule(Struct, forbid_unknown_fields=True):
    """A retention rule; `last_run_at` is null if it never ran."""

    id: str
    object: Literal["retention.rule"]
    action: RuleAction
    base: str | None
    suffix: str | None
    project: str | None
    older_than_days: int | None
    unused_for_days: int | None
    keep_latest: int | None
    notice_days: int
    enabled: bool
    created_by: str
    created_at: Seconds
    changed_at: Seconds
    last_run_at: Seconds | None


class RetentionState(Struct, forbid_unknown_fields=True):
    """Whether rules act: while it is `paused` they only preview, until an Owner resumes."""

    object: Literal["retention"]
    paused: bool
    paused_at: Seconds | None
    reason: PauseReason | None
    message: str | None

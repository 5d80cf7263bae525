"""JSON representations of what bulk deletions and retention rules do."""

from msgspec import UNSET

from tunewarden.api import bulk_schemas, schemas
from tunewarden.deletion.bulk.results import Result, Summary
from tunewarden.errors import Error
from tunewarden.problems import WIRE
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.criteria import Criteria


def criteria_of(sent: bulk_schemas.Filter) -> Criteria:
    """Return the criteria of a filter, not checked yet."""
    return Criteria(
        base=sent.base,
        suffix=sent.suffix,
        project_id=sent.project,
        older_than_days=sent.older_than_days,
        unused_for_days=sent.unused_for_days,
        keep_latest=sent.keep_latest,
    )


def line(one: Result | Summary) -> bulk_schemas.DeletionResult | bulk_schemas.DeletionSummary:
    """Return one line of an answer."""
    return _summary(one) if isinstance(one, Summary) else _result(one)


def _result(one: Result) -> bulk_schemas.DeletionResult:
    is_model = one.kind is ArtifactKind.MODEL
    shown = bulk_schemas.DeletionResult(
        object="deletion.result",
        outcome=one.outcome,
        reasons=[bulk_schemas.Reason(why.code, why.message) for why in one.reasons],
        model=one.artifact_id if is_model else UNSET,
        file=UNSET if is_model else one.artifact_id,
    )
    if one.deletion_id is not None:
        shown.deletion = one.deletion_id
    if one.due_at is not None:
        shown.due_at = one.due_at // 1_000_000
    if one.candidate is not None:
        used_at = one.candidate.last_used_at
        shown.created_at = one.candidate.created_at // 1_000_000
        shown.last_used_at = None if used_at is None else used_at // 1_000_000
    if is_model and one.plan is not None:
        shown.checkpoints = [checkpoint.id for checkpoint in one.plan.checkpoints]
    return shown


def _summary(one: Summary) -> bulk_schemas.DeletionSummary:
    return bulk_schemas.DeletionSummary(
        object="deletion.summary",
        id=one.id,
        dry_run=one.is_dry_run,
        counts={outcome.value: count for outcome, count in sorted(one.counts.items())},
        left=one.left,
        stopped=None if one.stopped is None else _problem(one.stopped),
        has_more=one.has_more,
        fingerprint=UNSET if one.fingerprint is None else one.fingerprint,
    )


def _problem(error: Error) -> schemas.Problem:
    return schemas.Problem(error.message, WIRE[error.kind][1], error.param, error.code)

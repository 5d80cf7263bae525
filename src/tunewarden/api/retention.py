"""`/v1/retention`: rules by which models are archived or deleted by themselves. For Owners only."""

from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response, StreamingResponse
from msgspec import UNSET
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import bulk_views, json_lines, listing, retention_schemas, schemas
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import Context, InContext, Segment, read_as
from tunewarden.registry import retention_pause
from tunewarden.registry.criteria import Criteria
from tunewarden.registry.retention_rules import NOTICE_DAYS, Rule, RuleAction, Terms

routes = APIRouter(prefix="/v1/retention")


@routes.get("")
def show_retention(context: InContext) -> JsonAnswer:
    """Return whether the organization's rules act, or are paused and why."""
    return _state(context)


@routes.post("/resume")
def resume_retention(context: InContext) -> JsonAnswer:
    """Let the organization's rules act again after a restore, a replay or a jump of the clock."""
    context.operations.retention.resume(context.caller)
    return _state(context)


@routes.post("/rules")
async def create_rule(context: InContext, request: Request) -> JsonAnswer:
    """Create a rule. It does nothing until it is enabled: preview it first."""
    sent = await read_as(request, retention_schemas.NewRule)
    usual = NOTICE_DAYS if sent.action is RuleAction.DELETE else 0
    terms = Terms(
        criteria=Criteria(
            base=sent.base,
            suffix=sent.suffix,
            project_id=sent.project,
            older_than_days=sent.older_than_days,
            unused_for_days=sent.unused_for_days,
            keep_latest=sent.keep_latest,
        ),
        action=sent.action,
        notice_days=usual if sent.notice_days is None else sent.notice_days,
        is_enabled=sent.enabled,
    )
    made = await run_in_threadpool(context.operations.retention_rules.create, context.caller, terms)
    return JsonAnswer(_shown(made))


@routes.get("/rules")
def list_rules(
    context: InContext,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: str | None = None,
) -> Response:
    """List the organization's rules, oldest first."""
    found = context.operations.retention_rules.page(context.caller, after=after, limit=limit + 1)
    return listing.page(map(_shown, found), limit)


@routes.get("/rules/{rule_id}")
def retrieve_rule(context: InContext, rule_id: Segment) -> JsonAnswer:
    """Return one rule."""
    return JsonAnswer(_shown(context.operations.retention_rules.find(context.caller, rule_id)))


@routes.post("/rules/{rule_id}")
async def change_rule(context: InContext, rule_id: Segment, request: Request) -> JsonAnswer:
    """Change, enable or disable a rule. A changed rule announces anew."""
    sent = await read_as(request, retention_schemas.RuleChanges)
    changed = await run_in_threadpool(
        context.operations.retention_rules.change, context.caller, rule_id, partial(_changed, sent)
    )
    return JsonAnswer(_shown(changed))


@routes.delete("/rules/{rule_id}")
def delete_rule(context: InContext, rule_id: Segment) -> JsonAnswer:
    """Delete a rule; no model."""
    context.operations.retention_rules.delete(context.caller, rule_id)
    return JsonAnswer(schemas.Deleted(rule_id, "retention.rule.deleted", deleted=True))


@routes.get("/rules/{rule_id}/preview")
async def preview_rule(context: InContext, rule_id: Segment) -> StreamingResponse:
    """Say what a run would do with each model that the rule is about, and why; nothing changes."""
    begin = json_lines.singly(
        partial(context.operations.retention.preview, context.caller, rule_id)
    )
    return await json_lines.answer(
        context.services.long_work, context.caller.organization_id, begin, bulk_views.line
    )


@routes.post("/rules/{rule_id}/run")
async def run_rule(
    context: InContext,
    rule_id: Segment,
    if_match: Annotated[str | None, Header()] = None,
    *,
    dry_run: bool = False,
) -> StreamingResponse:
    """Run a rule now, enabled or not; say what became of each model. With `dry_run` nothing changes: it is a preview.

    `If-Match` takes the fingerprint of a preview: then it does what that said, and nothing else. With `dry_run` it
    tells whether that still holds.
    """
    rules = context.operations.retention
    act = rules.preview if dry_run else rules.run
    begin = json_lines.singly(partial(act, context.caller, rule_id, if_match=if_match))
    return await json_lines.answer(
        context.services.long_work, context.caller.organization_id, begin, bulk_views.line
    )


def _changed(sent: retention_schemas.RuleChanges, terms: Terms) -> Terms:
    of_criteria = {
        "base": sent.base,
        "suffix": sent.suffix,
        "project_id": sent.project,
        "older_than_days": sent.older_than_days,
        "unused_for_days": sent.unused_for_days,
        "keep_latest": sent.keep_latest,
    }
    others = {
        "action": sent.action,
        "notice_days": sent.notice_days,
        "is_enabled": sent.enabled,
    }
    given = {name: value for name, value in of_criteria.items() if value is not UNSET}
    said = {name: value for name, value in others.items() if value is not UNSET}
    return replace(terms, criteria=replace(terms.criteria, **given), **said)  # type: ignore[arg-type]  # by their names


def _state(context: Context) -> JsonAnswer:
    pause = context.operations.retention.pause_of(context.caller)
    return JsonAnswer(
        retention_schemas.RetentionState(
            object="retention",
            paused=pause is not None,
            paused_at=None if pause is None else pause.since // 1_000_000,
            reason=None if pause is None else pause.reason,
            message=None if pause is None else retention_pause.SAID[pause.reason],
        )
    )


def _shown(rule: Rule) -> retention_schemas.Rule:
    terms = rule.terms
    return retention_schemas.Rule(
        id=rule.id,
        object="retention.rule",
        action=terms.action,
        base=terms.criteria.base,
        suffix=terms.criteria.suffix,
        project=terms.criteria.project_id,
        older_than_days=terms.criteria.older_than_days,
        unused_for_days=terms.criteria.unused_for_days,
        keep_latest=terms.criteria.keep_latest,
        notice_days=terms.notice_days,
        enabled=terms.is_enabled,
        created_by=rule.created_by,
        created_at=rule.created_at // 1_000_000,
        changed_at=rule.changed_at // 1_000_000,
        last_run_at=rule.last_run_at // 1_000_000 or None,
    )

"""`/v1/organization/projects/{project_id}/…`: rate limits of the project and of its API keys, and its quota."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api import listing
from tunewarden.api.administration import schemas
from tunewarden.api.administration.bodies import Body, InBody
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration, Segment
from tunewarden.registry.limit_commands import LimitCommands, QuotaUse
from tunewarden.registry.quota import QuotaChange
from tunewarden.registry.rate_limits import Change, RateLimit

routes = APIRouter(prefix="/v1/organization/projects/{project_id}")
REQUESTS, TOKENS = "max_requests_per_1_minute", "max_tokens_per_1_minute"
# OpenAI lists 100 at once unless a limit is named.
LIMIT = 100
NOT_OFFERED = {
    "batch_1_day_max_input_tokens": "it has no batches.",
    "max_audio_megabytes_per_1_minute": "it serves no audio.",
    "max_images_per_1_minute": "it makes no images.",
    "max_requests_per_1_day": "limits are of a minute.",
}


@routes.get("/rate_limits")
def list_rate_limits(
    context: InAdministration,
    project_id: Segment,
    *,
    limit: Annotated[int, Query(ge=0, le=1000)] = LIMIT,
    after: str | None = None,
    before: str | None = None,
) -> Response:
    """List the rate limits of a project, one of each base, by its name."""
    found = _commands(context).page(
        context.administrator, project_id, after=after, before=before, limit=limit + 1
    )
    return listing.page((_of_base(base, each) for base, each in found), limit)


@routes.post("/rate_limits/{rate_limit_id}")
async def update_rate_limit(
    context: InAdministration, project_id: Segment, rate_limit_id: Segment, body: InBody
) -> JsonAnswer:
    """Set what a project may send to a base in a minute, its fine-tunes included."""
    change = _change(body)
    base, found = await run_in_threadpool(
        _commands(context).update, context.administrator, project_id, rate_limit_id, change
    )
    return JsonAnswer(_of_base(base, found))


@routes.get("/api_keys/{api_key_id}/rate_limit")
def retrieve_key_rate_limit(
    context: InAdministration, project_id: Segment, api_key_id: Segment
) -> JsonAnswer:
    """Return what an API key may send in a minute."""
    found = _commands(context).of_key(context.administrator, project_id, api_key_id)
    return JsonAnswer(_of_key(api_key_id, found))


@routes.post("/api_keys/{api_key_id}/rate_limit")
async def update_key_rate_limit(
    context: InAdministration, project_id: Segment, api_key_id: Segment, body: InBody
) -> JsonAnswer:
    """Set what an API key may send in a minute, to all models."""
    change = _change(body)
    found = await run_in_threadpool(
        _commands(context).update_key, context.administrator, project_id, api_key_id, change
    )
    return JsonAnswer(_of_key(api_key_id, found))


@routes.get("/quota")
def retrieve_quota(context: InAdministration, project_id: Segment) -> JsonAnswer:
    """Return what a project may have, and has."""
    found = _commands(context).quota_of(context.administrator, project_id)
    return JsonAnswer(_quota(project_id, found))


@routes.post("/quota")
async def update_quota(context: InAdministration, project_id: Segment, body: InBody) -> JsonAnswer:
    """Set what a project may have."""
    body.check("max_bytes", "max_files", "max_models")
    change = QuotaChange(
        body.whole_number("max_bytes"),
        body.whole_number("max_files"),
        body.whole_number("max_models"),
    )
    found = await run_in_threadpool(
        _commands(context).update_quota, context.administrator, project_id, change
    )
    return JsonAnswer(_quota(project_id, found))


def _commands(context: InAdministration) -> LimitCommands:
    of = context.operations
    return LimitCommands(of.database, of.rate_limits, of.quota)


def _change(body: Body) -> Change:
    body.check(REQUESTS, TOKENS, not_offered=NOT_OFFERED)
    return Change(body.whole_number(REQUESTS), body.whole_number(TOKENS))


def _of_base(base: str, found: RateLimit) -> schemas.ProjectRateLimit:
    return schemas.ProjectRateLimit(
        id=f"rl-{base}",
        object="project.rate_limit",
        model=base,
        max_requests_per_1_minute=found.requests,
        max_tokens_per_1_minute=found.tokens,
    )


def _of_key(key_id: str, found: RateLimit) -> schemas.KeyRateLimit:
    return schemas.KeyRateLimit(
        id=key_id,
        object="organization.project.api_key.rate_limit",
        max_requests_per_1_minute=found.requests,
        max_tokens_per_1_minute=found.tokens,
    )


def _quota(project_id: str, found: QuotaUse) -> schemas.ProjectQuota:
    most, used = found
    return schemas.ProjectQuota(
        id=project_id,
        object="organization.project.quota",
        max_bytes=most.bytes,
        max_files=most.files,
        max_models=most.models,
        used_bytes=used.bytes,
        used_files=used.files,
        used_models=used.models,
    )

"""`/v1/fine_tuning`: jobs, their events and checkpoints, and checkpoint permissions."""

import re
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tunewarden.api import fine_tuning_views as views
from tunewarden.api import listing
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import Context, InContext, Segment, read_object
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import (
    checkpoints,
    commands,
    creation,
    curves,
    events,
    jobs,
    metadata,
    permissions,
)
from tunewarden.finetuning.jobs import Job, NamedJob

METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
Limit = Annotated[int, Query(ge=0, le=1000)]


routes = APIRouter(prefix="/v1/fine_tuning")
JOB = "/jobs/{job_id}"
PERMISSIONS = "/checkpoints/{model_id}/permissions"


@routes.post("/jobs")
async def create_job(
    context: InContext, request: Request, idempotency_key: Annotated[str | None, Header()] = None
) -> JsonAnswer:
    """Create a job. The same `Idempotency-Key` again gets the same job."""
    creation.precheck(context.caller)  # before the body is read
    wanted = creation.parse(await read_object(request), idempotency_key)
    operations = context.operations
    made = await run_in_threadpool(
        creation.create,
        operations.database,
        operations.memory,
        operations.files.keyring,
        operations.quota,
        context.caller,
        wanted,
    )
    return JsonAnswer(views.job_object(made))


@routes.get("/jobs")
def list_jobs(
    context: InContext,
    request: Request,
    limit: Limit = 20,
    after: str | None = None,
) -> Response:
    """List the project's jobs, newest first; `metadata[key]=value` filters them."""
    found = jobs.page(
        context.operations.database,
        context.caller,
        after=after,
        limit=limit + 1,
        opened=lambda some: metadata.opened(context.operations.files.keyring, some),
        matches=_wanted_metadata(request),
    )
    return listing.page(map(views.job_object, found), limit)


@routes.get(JOB)
def retrieve_job(context: InContext, job_id: Segment) -> JsonAnswer:
    """Return one job."""
    return _shown(context, jobs.retrieve(context.operations.database, context.caller, job_id))


@routes.get(f"{JOB}/events")
def list_events(
    context: InContext,
    job_id: Segment,
    limit: Limit = 20,
    after: str | None = None,
) -> Response:
    """List a job's events, newest first."""
    database = context.operations.database
    found = events.page(database, context.caller, job_id, after=after, limit=limit + 1)
    return listing.page(map(views.event_object, found), limit)


@routes.get(f"{JOB}/metrics")
def retrieve_metrics(
    context: InContext,
    job_id: Segment,
    points: Annotated[
        int, Query(ge=curves.POINTS_MIN, le=curves.POINTS_MAX)
    ] = curves.POINTS_DEFAULT,
) -> JsonAnswer:
    """Return a job's loss and accuracy by step, each in at most `points`; also while it runs."""
    found = curves.retrieve(context.operations.database, context.caller, job_id, points=points)
    return JsonAnswer(views.metrics_object(found))


@routes.get(f"{JOB}/checkpoints")
def list_checkpoints(
    context: InContext,
    job_id: Segment,
    limit: Limit = 10,
    after: str | None = None,
) -> Response:
    """List a job's checkpoints, newest first."""
    database = context.operations.database
    found = checkpoints.page(database, context.caller, job_id, after=after, limit=limit + 1)
    return listing.page((views.checkpoint_object(one, job_id) for one in found), limit)


@routes.post(f"{JOB}/cancel")
def cancel_job(context: InContext, job_id: Segment) -> JsonAnswer:
    """Cancel a job; answer when its trainer has ended, or after a short timeout."""
    operations = context.operations
    return _shown(
        context, commands.cancel(operations.database, operations.clock, context.caller, job_id)
    )


@routes.post(f"{JOB}/pause")
def pause_job(context: InContext, job_id: Segment) -> JsonAnswer:
    """Pause a job."""
    operations = context.operations
    return _shown(
        context, commands.pause(operations.database, operations.clock, context.caller, job_id)
    )


@routes.post(f"{JOB}/resume")
def resume_job(context: InContext, job_id: Segment) -> JsonAnswer:
    """Resume a paused job."""
    return _shown(context, commands.resume(context.operations.database, context.caller, job_id))


@routes.post(PERMISSIONS)
async def create_permissions(context: InContext, model_id: Segment, request: Request) -> Response:
    """Grant projects access to a checkpoint."""
    permissions.precheck(context.caller)  # before the body is read
    projects = _project_ids((await read_object(request)).get("project_ids"))
    database = context.operations.database
    made = await run_in_threadpool(permissions.create, database, context.caller, model_id, projects)
    return listing.page(map(views.permission_object, made), None)


@routes.get(PERMISSIONS)
def list_permissions(
    context: InContext,
    model_id: Segment,
    *,
    limit: Limit = 10,
    after: str | None = None,
    order: Literal["ascending", "descending"] = "descending",
    project_id: str | None = None,
) -> Response:
    """List the projects that have access to a checkpoint."""
    found = permissions.page(
        context.operations.database,
        context.caller,
        model_id,
        after=after,
        limit=limit + 1,
        project_id=project_id,
        is_ascending=order == "ascending",
    )
    return listing.page(map(views.permission_object, found), limit)


@routes.delete(f"{PERMISSIONS}/{{permission_id}}")
def delete_permission(context: InContext, model_id: Segment, permission_id: Segment) -> JsonAnswer:
    """Revoke a permission."""
    permissions.delete(context.operations.database, context.caller, model_id, permission_id)
    return JsonAnswer({"id": permission_id, "object": "checkpoint.permission", "deleted": True})


@routes.post("/alpha/graders/run")
@routes.post("/alpha/graders/validate")
def refuse_grader(_: InContext) -> JsonAnswer:
    """Refuse: graders belong to reinforcement fine-tuning, which is not supported."""
    raise Error(
        Kind.NOT_FOUND,
        "Graders and reinforcement fine-tuning are not supported by this server.",
    )


def _shown(context: Context, named: NamedJob) -> JsonAnswer:
    keyring = context.operations.files.keyring
    return JsonAnswer(views.job_object(metadata.opened(keyring, [named])[0]))


def _project_ids(value: object) -> list[str]:
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= permissions.PROJECTS_MAX
        or not all(isinstance(one, str) for one in value)
    ):
        raise Error(
            Kind.INVALID,
            f"'project_ids' must be a list of 1 to {permissions.PROJECTS_MAX} project ids.",
            param="project_ids",
        )
    return value


def _wanted_metadata(request: Request) -> Callable[[Job], bool]:
    """Return the filter that `metadata[key]=value` pairs, or `metadata=null`, ask for."""
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if match := METADATA.fullmatch(name):
            wanted[match[1]] = value
        elif name == "metadata":
            if value != "null":
                raise Error(
                    Kind.INVALID,
                    "To filter by metadata, use metadata[key]=value or metadata=null.",
                    param="metadata",
                )
            return jobs.has_metadata(None)
    return jobs.has_metadata(wanted)

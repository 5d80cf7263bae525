"""`/v1/fine_tuning`: jobs, their events and checkpoints, and who else may use a checkpoint."""

import re
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import fine_tuning_views as views
from tunewarden.api.bodies import read_body
from tunewarden.api.operations import Operations
from tunewarden.api.segments import Calling, Segment
from tunewarden.artifacts.strict_json import Malformed, parse_object
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import checkpoints, creation, events, jobs, life, permissions
from tunewarden.finetuning.jobs import Job
from tunewarden.identity.policy import Action, authorize

BODY_BYTES_MAX = 1024 * 1024
BODY_VALUES_MAX = 10_000
METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
Limit = Annotated[int, Query(ge=0, le=1000)]


def router(operations: Operations) -> APIRouter:
    """Return the routes of fine-tuning."""
    routes = APIRouter(prefix="/v1/fine_tuning")
    _add_jobs(routes, operations)
    _add_life(routes, operations)
    _add_permissions(routes, operations)

    @routes.post("/alpha/graders/run")
    @routes.post("/alpha/graders/validate")
    def post_grader(_: Calling) -> JSONResponse:
        """Refuse: graders belong to reinforcement fine-tuning."""
        raise Error(
            Kind.NOT_FOUND,
            "Graders, and reinforcement fine-tuning, are not offered by this server.",
        )

    return routes


def _add_jobs(routes: APIRouter, operations: Operations) -> None:
    database = operations.database

    @routes.post("/jobs")
    async def post_job(caller: Calling, request: Request) -> JSONResponse:
        """Create a job."""
        authorize(caller, Action.WRITE_JOBS)
        wanted = creation.parse(await _body(request))
        return JSONResponse(
            views.job_object(await run_in_threadpool(creation.create, database, caller, wanted))
        )

    @routes.get("/jobs")
    def get_jobs(
        caller: Calling, request: Request, limit: Limit = 20, after: str | None = None
    ) -> JSONResponse:
        """List the project's jobs, newest first; `metadata[key]=value` chooses among them."""
        found = jobs.page(
            database, caller, after=after, limit=limit + 1, matches=_wanted_metadata(request)
        )
        return JSONResponse(views.listing([views.job_object(one) for one in found], limit))

    @routes.get("/jobs/{job_id}")
    def get_job(caller: Calling, job_id: Segment) -> JSONResponse:
        """Return one job."""
        return JSONResponse(views.job_object(jobs.retrieve(database, caller, job_id)))

    @routes.get("/jobs/{job_id}/events")
    def get_events(
        caller: Calling, job_id: Segment, limit: Limit = 20, after: str | None = None
    ) -> JSONResponse:
        """List what a job told, newest first."""
        found = events.page(database, caller, job_id, after=after, limit=limit + 1)
        return JSONResponse(views.listing([views.event_object(one) for one in found], limit))

    @routes.get("/jobs/{job_id}/checkpoints")
    def get_checkpoints(
        caller: Calling, job_id: Segment, limit: Limit = 10, after: str | None = None
    ) -> JSONResponse:
        """List a job's checkpoints, newest first."""
        found = checkpoints.page(database, caller, job_id, after=after, limit=limit + 1)
        shown = [views.checkpoint_object(one, job_id) for one in found]
        return JSONResponse(views.listing(shown, limit))


def _add_life(routes: APIRouter, operations: Operations) -> None:
    database, clock = operations.database, operations.clock

    @routes.post("/jobs/{job_id}/cancel")
    def cancel_job(caller: Calling, job_id: Segment) -> JSONResponse:
        """Cancel a job; answer when its trainer is gone, or a little later all the same."""
        return JSONResponse(views.job_object(life.cancel(database, clock, caller, job_id)))

    @routes.post("/jobs/{job_id}/pause")
    def pause_job(caller: Calling, job_id: Segment) -> JSONResponse:
        """Pause a job."""
        return JSONResponse(views.job_object(life.pause(database, clock, caller, job_id)))

    @routes.post("/jobs/{job_id}/resume")
    def resume_job(caller: Calling, job_id: Segment) -> JSONResponse:
        """Let a paused job go on."""
        return JSONResponse(views.job_object(life.resume(database, caller, job_id)))


def _add_permissions(routes: APIRouter, operations: Operations) -> None:
    database = operations.database
    path = "/checkpoints/{model_id}/permissions"

    @routes.post(path)
    async def post_permissions(
        caller: Calling, model_id: Segment, request: Request
    ) -> JSONResponse:
        """Let projects see and use a checkpoint."""
        authorize(caller, Action.WRITE_CHECKPOINTS)
        projects = _project_ids((await _body(request)).get("project_ids"))
        made = await run_in_threadpool(permissions.create, database, caller, model_id, projects)
        shown = [views.permission_object(one) for one in made]
        return JSONResponse(views.listing(shown, len(shown)))

    @routes.get(path)
    def get_permissions(
        caller: Calling,
        model_id: Segment,
        *,
        limit: Limit = 10,
        after: str | None = None,
        order: Literal["ascending", "descending"] = "descending",
        project_id: str | None = None,
    ) -> JSONResponse:
        """List which projects may see and use a checkpoint."""
        found = permissions.page(
            database,
            caller,
            model_id,
            after=after,
            limit=limit + 1,
            project_id=project_id,
            is_ascending=order == "ascending",
        )
        return JSONResponse(views.listing([views.permission_object(one) for one in found], limit))

    @routes.delete(f"{path}/{{permission_id}}")
    def delete_permission(
        caller: Calling, model_id: Segment, permission_id: Segment
    ) -> JSONResponse:
        """Take a permission away."""
        permissions.delete(database, caller, model_id, permission_id)
        return JSONResponse(
            {"id": permission_id, "object": "checkpoint.permission", "deleted": True}
        )


async def _body(request: Request) -> dict[str, object]:
    body = await read_body(request.receive, BODY_BYTES_MAX)
    try:
        return parse_object(body, max_values=BODY_VALUES_MAX)
    except Malformed as error:
        raise Error(Kind.INVALID, f"The body {error}.") from error


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
    """Return what `metadata[key]=value` pairs, or `metadata=null`, ask for."""
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if match := METADATA.fullmatch(name):
            wanted[match[1]] = value
        elif name == "metadata":
            if value != "null":
                raise Error(
                    Kind.INVALID,
                    "To filter by metadata, give metadata[key]=value, or metadata=null.",
                    param="metadata",
                )
            return jobs.has_metadata(None)
    return jobs.has_metadata(wanted)

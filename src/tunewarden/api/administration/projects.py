"""`/v1/organization/projects`: the projects of the organization."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api.administration import schemas
from tunewarden.api.administration.bodies import InBody
from tunewarden.api.administration.pages import InPage, page
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration, Segment
from tunewarden.finetuning import project_contents
from tunewarden.identity import projects
from tunewarden.identity.projects import Project

routes = APIRouter(prefix="/v1/organization/projects")
# They would promise where bytes are, or whose keys seal them.
NOT_OFFERED = {
    "geography": "bytes are where the operator's disk is.",
    "residency": "bytes are where the operator's disk is.",
    "external_key_id": "each model and file has a key of its own.",
}


@routes.get("")
def list_projects(
    context: InAdministration,
    asked: InPage,
    *,
    include_archived: Annotated[bool, Query()] = False,
) -> Response:
    """List the projects of the organization, newest first."""
    archived = {"include_archived": include_archived}
    return page(context, asked, projects.page, shown=partial(map, shown), **archived)


@routes.post("")
async def create_project(context: InAdministration, body: InBody) -> JsonAnswer:
    """Create a project."""
    body.check("name", not_offered=NOT_OFFERED)
    name = body.required_text("name")
    made = await run_in_threadpool(
        projects.add, context.operations.database, context.administrator, name
    )
    return JsonAnswer(shown(made))


@routes.get("/{project_id}")
def retrieve_project(context: InAdministration, project_id: Segment) -> JsonAnswer:
    """Return one project."""
    database = context.operations.database
    return JsonAnswer(shown(projects.retrieve(database, context.administrator, project_id)))


@routes.post("/{project_id}")
async def update_project(
    context: InAdministration, project_id: Segment, body: InBody
) -> JsonAnswer:
    """Give a project another name."""
    body.check("name", not_offered=NOT_OFFERED)
    database, administrator = context.operations.database, context.administrator
    changed = await run_in_threadpool(
        projects.rename, database, administrator, project_id, body.text("name")
    )
    return JsonAnswer(shown(changed))


@routes.post("/{project_id}/archive")
def archive_project(context: InAdministration, project_id: Segment) -> JsonAnswer:
    """Archive a project for good: requests with its keys are refused from then on."""
    archived = projects.archive(
        context.operations.database, context.administrator, project_id, project_contents.counts
    )
    return JsonAnswer(shown(archived))


def shown(project: Project) -> schemas.Project:
    """Return a project as OpenAI's Project."""
    archived = project.archived_at
    return schemas.Project(
        id=project.id,
        object="organization.project",
        name=project.name,
        created_at=project.created_at // 1_000_000,
        archived_at=None if archived is None else archived // 1_000_000,
        status="active" if archived is None else "archived",
        is_default=project.is_default,
    )

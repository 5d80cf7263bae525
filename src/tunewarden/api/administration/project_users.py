"""`/v1/organization/projects/{project_id}/users`: the people of a project."""

from functools import partial

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api.administration import schemas
from tunewarden.api.administration.bodies import InBody
from tunewarden.api.administration.pages import InPage, page
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration, Segment
from tunewarden.api.schemas import Deleted
from tunewarden.identity import project_members
from tunewarden.identity.policy import ProjectRole
from tunewarden.identity.project_members import Member

routes = APIRouter(prefix="/v1/organization/projects/{project_id}/users")


@routes.get("")
def list_project_users(context: InAdministration, project_id: Segment, asked: InPage) -> Response:
    """List the people of a project, newest first."""
    return page(context, asked, project_members.page, project_id, shown=partial(map, shown))


@routes.post("")
async def add_project_user(
    context: InAdministration, project_id: Segment, body: InBody
) -> JsonAnswer:
    """Add a person of the organization to a project."""
    body.check("role", "user_id", "email")
    added = await run_in_threadpool(
        project_members.add,
        context.operations.database,
        context.administrator,
        project_id,
        user_id=body.text("user_id"),
        email=body.text("email"),
        role=body.required_one_of("role", ProjectRole),
    )
    return JsonAnswer(shown(added))


@routes.get("/{user_id}")
def retrieve_project_user(
    context: InAdministration, project_id: Segment, user_id: Segment
) -> JsonAnswer:
    """Return one person in a project."""
    database, administrator = context.operations.database, context.administrator
    return JsonAnswer(shown(project_members.retrieve(database, administrator, project_id, user_id)))


@routes.post("/{user_id}")
async def update_project_user(
    context: InAdministration, project_id: Segment, user_id: Segment, body: InBody
) -> JsonAnswer:
    """Give a person in a project another role there."""
    body.check("role")
    changed = await run_in_threadpool(
        project_members.update,
        context.operations.database,
        context.administrator,
        project_id,
        user_id,
        body.one_of("role", ProjectRole),
    )
    return JsonAnswer(shown(changed))


@routes.delete("/{user_id}")
def delete_project_user(
    context: InAdministration, project_id: Segment, user_id: Segment
) -> JsonAnswer:
    """Remove a person from a project."""
    project_members.remove(context.operations.database, context.administrator, project_id, user_id)
    return JsonAnswer(Deleted(user_id, "organization.project.user.deleted", deleted=True))


def shown(member: Member) -> schemas.ProjectUser:
    """Return a person in a project as OpenAI's ProjectUser."""
    return schemas.ProjectUser(
        id=member.user_id,
        object="organization.project.user",
        name=member.name,
        email=member.email,
        role=member.role.value,
        added_at=member.added_at // 1_000_000,
    )

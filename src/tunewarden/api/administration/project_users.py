"""`/v1/organization/projects/{project_id}/users`: the people of a project."""

from fastapi import APIRouter
from starlette.responses import Response

from tunewarden.api import listing
from tunewarden.api.administration import schemas
from tunewarden.api.administration.pages import LIMIT, Limit
from tunewarden.api.parameters import InAdministration, Segment
from tunewarden.identity import project_members
from tunewarden.identity.project_members import Member

routes = APIRouter(prefix="/v1/organization/projects/{project_id}/users")


@routes.get("")
def list_project_users(
    context: InAdministration,
    project_id: Segment,
    limit: Limit = LIMIT,
    after: str | None = None,
) -> Response:
    """List the people of a project, newest first."""
    found = project_members.page(
        context.operations.database,
        context.administrator,
        project_id,
        after=after,
        limit=limit + 1,
    )
    return listing.page(map(shown, found), limit)


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

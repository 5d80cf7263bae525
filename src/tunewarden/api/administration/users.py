"""`/v1/organization/users`: the people of the organization."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api.administration import schemas
from tunewarden.api.administration.bodies import InBody
from tunewarden.api.administration.pages import InPage, page
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import Administration, InAdministration, Segment
from tunewarden.api.schemas import Deleted
from tunewarden.identity import project_members, user_commands, users
from tunewarden.identity.key_rows import seconds_of
from tunewarden.identity.policy import Role
from tunewarden.identity.project_members import Membership
from tunewarden.identity.users import User
from tunewarden.registry import usage

routes = APIRouter(prefix="/v1/organization/users")
NOT_OFFERED = {
    "role_id": "users have the role 'owner' or 'reader'.",
    "developer_persona": "nothing is kept of it.",
    "technical_level": "nothing is kept of it.",
}
# The SDK writes lists in queries with brackets.
Emails = Annotated[list[str], Query(alias="emails[]", max_length=100)]


@routes.get("")
def list_users(
    context: InAdministration,
    asked: InPage,
    emails: Emails = [],  # noqa: B006  FastAPI's way to say that none is fine
) -> Response:
    """List the people of the organization, newest first."""
    return page(context, asked, users.page, shown=partial(_shown, context), emails=emails)


@routes.get("/{user_id}")
def retrieve_user(context: InAdministration, user_id: Segment) -> JsonAnswer:
    """Return one person."""
    found = users.retrieve(context.operations.database, context.administrator, user_id)
    return JsonAnswer(_shown(context, [found])[0])


@routes.post("/{user_id}")
async def update_user(context: InAdministration, user_id: Segment, body: InBody) -> JsonAnswer:
    """Give a person another role in the organization."""
    body.check("role", not_offered=NOT_OFFERED)
    changed = await run_in_threadpool(
        user_commands.set_role,
        context.operations.database,
        context.administrator,
        user_id,
        body.one_of("role", Role),
    )
    return JsonAnswer((await run_in_threadpool(_shown, context, [changed]))[0])


@routes.delete("/{user_id}")
def delete_user(context: InAdministration, user_id: Segment) -> JsonAnswer:
    """Remove a person from the organization, with the keys that the person has."""
    user_commands.remove(context.operations.database, context.administrator, user_id)
    return JsonAnswer(Deleted(user_id, "organization.user.deleted", deleted=True))


def _shown(context: Administration, found: Sequence[User]) -> list[schemas.OrganizationUser]:
    """Return people with their projects and when they last used a key: two statements, however many they are."""
    ids = [user.id for user in found]
    with context.operations.database.read() as tx:
        in_projects = project_members.projects_of(tx, ids)
        used = usage.last_uses_of_users(tx, ids)
    return [shown(user, in_projects[user.id], used.get(user.id)) for user in found]


def shown(
    user: User, in_projects: Sequence[Membership], last_used_at: int | None
) -> schemas.OrganizationUser:
    """Return a person as OpenAI's OrganizationUser; `last_used_at` is in microseconds."""
    return schemas.OrganizationUser(
        id=user.id,
        object="organization.user",
        name=user.name,
        email=user.email,
        role=user.role.value,
        added_at=user.added_at // 1_000_000,
        api_key_last_used_at=seconds_of(last_used_at),
        projects=schemas.UserProjects(
            "list",
            [
                schemas.UserProject(one.project_id, one.project_name, one.role.value)
                for one in in_projects
            ],
        ),
    )

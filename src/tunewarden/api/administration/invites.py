"""`/v1/organization/invites`: links that make users."""

from functools import partial
from itertools import starmap

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tunewarden.api import own_address
from tunewarden.api.administration import invite_schemas as schemas
from tunewarden.api.administration.bodies import Body, InBody
from tunewarden.api.administration.pages import InPage, page
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import Administration, InAdministration, Segment
from tunewarden.api.schemas import Deleted
from tunewarden.errors import Error, Kind
from tunewarden.identity import invites
from tunewarden.identity.invite_rows import Grant, Invite, Status
from tunewarden.identity.policy import GrantedRole, ProjectRole, Role

routes = APIRouter(prefix="/v1/organization/invites")


@routes.post("")
async def create_invite(context: InAdministration, body: InBody, request: Request) -> JsonAnswer:
    """Invite an address: the answer has the link, which is not shown again, and says whether it was mailed."""
    body.check("email", "role", "projects")
    invite, token = await run_in_threadpool(
        invites.create,
        context.operations.database,
        context.administrator,
        email=body.required_text("email"),
        role=body.required_one_of("role", Role),
        grants=_grants(body),
    )
    answer = shown(invite, Status.PENDING)
    answer.link = f"{own_address.of(context.operations.config, request)}/invites/{token}"
    answer.mail = await _mailed(context, invite, answer.link)
    # The link is as good as a key.
    return JsonAnswer(answer, headers={"cache-control": "no-store"})


@routes.get("")
def list_invites(context: InAdministration, asked: InPage) -> Response:
    """List invites, newest first, without their links."""
    return page(context, asked, invites.page, shown=partial(starmap, shown))


@routes.get("/{invite_id}")
def retrieve_invite(context: InAdministration, invite_id: Segment) -> JsonAnswer:
    """Return one invite, without its link."""
    database, administrator = context.operations.database, context.administrator
    return JsonAnswer(shown(*invites.retrieve(database, administrator, invite_id)))


@routes.delete("/{invite_id}")
def delete_invite(context: InAdministration, invite_id: Segment) -> JsonAnswer:
    """Withdraw an invite that was not accepted: its link does nothing from then on."""
    invites.delete(context.operations.database, context.administrator, invite_id)
    return JsonAnswer(Deleted(invite_id, "organization.invite.deleted", deleted=True))


def shown(invite: Invite, status: Status) -> schemas.Invite:
    """Return an invite as OpenAI's Invite."""
    accepted = invite.accepted_at
    return schemas.Invite(
        id=invite.id,
        object="organization.invite",
        email=invite.email,
        role=invite.role.value,
        status=status.value,
        projects=[schemas.InviteProject(one.project_id, one.role.value) for one in invite.grants],
        created_at=invite.created_at // 1_000_000,
        expires_at=invite.expires_at // 1_000_000,
        accepted_at=None if accepted is None else accepted // 1_000_000,
    )


async def _mailed(context: Administration, invite: Invite, link: str) -> schemas.Mail:
    organization = context.administrator.organization_name
    mailed = await context.services.mailer.send(
        context.operations.config,
        to=invite.email,
        subject=f"Invitation to {organization}",
        text=(
            f"You are invited to the organization {organization} on a Tunewarden server.\n\n"
            f"Open this link within 7 days to become a user and get an API key:\n\n{link}\n\n"
            "The link works once. If you did not expect this message, ignore it.\n"
        ),
    )
    return schemas.Mail(mailed.status, mailed.reason)


def _grants(body: Body) -> list[Grant] | None:
    wanted = body.objects("projects")
    if wanted is None:
        return None
    for one in wanted:
        one.check("id", "role")
        if one.text("role") == ProjectRole.VIEWER:
            raise Error(
                Kind.INVALID,
                "An invite gives the role 'member' or 'owner' in a project: OpenAI's schema of invites has no 'viewer'."
                " Invite with \"projects\": [], and when the invite is accepted add the user to the project as 'viewer'.",
                param="role",
                code="invalid_value",
            )
    return [
        Grant(one.required_text("id"), one.required_one_of("role", GrantedRole)) for one in wanted
    ]

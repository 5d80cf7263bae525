"""People of the organization and invites: roles, links that are shown once, removal."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from tunewarden.api import own_address
from tunewarden.console import confirming, lists, rendering, tables
from tunewarden.console.administration import administered, shown_key
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.errors import Error, Kind
from tunewarden.identity import invites, project_members, user_commands, users
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import Role
from tunewarden.identity.project_members import Membership
from tunewarden.identity.users import User
from tunewarden.registry import usage

HERE = "/console/people"
INVITES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Person:
    """A person, in which projects, and when an API key of theirs was used last."""

    user: User
    projects: Sequence[Membership]
    last_used_at: int | None


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Person], str | None]:
    database, administrator = visit.operations.database, shown_key(visit)
    found = users.page(database, administrator, after=after, limit=limit + 1)
    rows, cursor = lists.cut(found, lambda one: one.id, limit)
    ids = [one.id for one in rows]
    with database.read() as tx:
        in_projects = project_members.projects_of(tx, ids)
        used = usage.last_uses_of_users(tx, ids)
    return [Person(one, in_projects[one.id], used.get(one.id)) for one in rows], cursor


PEOPLE = Table[Person](
    "people",
    _read,
    {
        "id": lambda one: one.user.id,
        "name": lambda one: one.user.name,
        "email": lambda one: one.user.email,
        "role": lambda one: one.user.role.value,
        "projects": lambda one: ", ".join(each.project_name for each in one.projects),
        "last_used_at": lambda one: tables.instant(one.last_used_at),
        "added_at": lambda one: tables.instant(one.user.added_at),
    },
)


@administered
@tables.also_as(PEOPLE)
def list_people(visit: Visit, administrator: Administrator) -> Response:
    """Return a page of people, the newest first, and the newest invites."""
    database = visit.operations.database
    _, values = PEOPLE.page(visit)
    values |= {
        "roles": [one.value for one in Role],
        "invites": invites.page(database, administrator, after=None, limit=INVITES_SHOWN),
    }
    return rendering.page(visit, "people.html", values)


@confirming.proved({"set-role": "Change the role", "remove": "Remove the person"})
@administered
def change_person(visit: Visit, administrator: Administrator) -> Response:
    """Give a person another role, or remove the person: then what was typed must be the person's id."""
    asked, database = visit.asked, visit.operations.database
    user_id, act = asked.segments["user_id"], asked.sent("act")
    if act == "remove":
        if asked.sent("confirmation").strip() != user_id:
            said = "What you typed is not the id of this person. Nobody was removed."
            raise Error(Kind.INVALID, said, param="confirmation")
        user_commands.remove(database, administrator, user_id)
    elif act == "set-role":
        user_commands.set_role(database, administrator, user_id, asked.sent_choice("role", Role))
    else:
        raise Error(Kind.INVALID, "The form does not say what to do with the person.")
    return rendering.to(HERE)


@confirming.proved("Make the link")
@administered
def invite(visit: Visit, administrator: Administrator) -> Response:
    """Invite an address, and show the link, which is not stored."""
    asked = visit.asked
    made, token = invites.create(
        visit.operations.database,
        administrator,
        email=asked.sent("email").strip(),
        role=asked.sent_choice("role", Role),
        grants=None,
    )
    link = f"{own_address.of(visit.operations.config, asked.request)}/invites/{token}"
    return rendering.page(visit, "invite_link.html", {"invite": made, "link": link})


@administered
def withdraw_invite(visit: Visit, administrator: Administrator) -> Response:
    """Withdraw an invite: its link does nothing from then on."""
    invites.delete(visit.operations.database, administrator, visit.asked.segments["invite_id"])
    return rendering.to(HERE)


PAGES = (
    Page("GET", HERE, list_people),
    Page("POST", f"{HERE}/invites", invite),
    Page("POST", f"{HERE}/invites/{{invite_id}}", withdraw_invite),
    Page("POST", f"{HERE}/{{user_id}}", change_person),
)

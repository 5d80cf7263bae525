"""Who is in a project: added, given another role, removed. Who does so proves who it is."""

from collections.abc import Sequence

from starlette.responses import Response

from tunewarden.console import confirming, lists, rendering, tables
from tunewarden.console.administration import administered, shown_key
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.errors import Error, Kind
from tunewarden.identity import project_members, projects
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import ProjectRole
from tunewarden.identity.project_members import Member

HERE = "/console/projects/{project_id}/members"
PROVED = {"set-role": "Change the role", "remove": "Remove from the project"}


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Member], str | None]:
    found = project_members.page(
        visit.operations.database,
        shown_key(visit),
        visit.asked.segments["project_id"],
        after=after,
        limit=limit + 1,
    )
    return lists.cut(found, lambda one: one.user_id, limit)


MEMBERS = Table[Member](
    "members",
    _read,
    {
        "id": lambda one: one.user_id,
        "name": lambda one: one.name,
        "email": lambda one: one.email,
        "role": lambda one: one.role.value,
        "added_at": lambda one: tables.instant(one.added_at),
    },
)


@administered
@tables.also_as(MEMBERS)
def list_members(visit: Visit, administrator: Administrator) -> Response:
    """Return a page of the project's people, the newest first, with the form that adds one."""
    database, project_id = visit.operations.database, visit.asked.segments["project_id"]
    _, values = MEMBERS.page(visit)
    values |= {
        "project": projects.retrieve(database, administrator, project_id),
        "roles": [one.value for one in ProjectRole],
    }
    return rendering.page(visit, "members.html", values)


@confirming.proved("Add to the project")
@administered
def add_member(visit: Visit, administrator: Administrator) -> Response:
    """Add a person of the organization, by id or address."""
    project_id, person = visit.asked.segments["project_id"], visit.asked.sent("person").strip()
    is_address = "@" in person
    project_members.add(
        visit.operations.database,
        administrator,
        project_id,
        user_id=None if is_address else person,
        email=person if is_address else None,
        role=visit.asked.sent_choice("role", ProjectRole),
    )
    return rendering.to(_page_of(project_id))


@confirming.proved(PROVED)
@administered
def change_member(visit: Visit, administrator: Administrator) -> Response:
    """Give a person another role in the project, or remove the person from it."""
    asked, database = visit.asked, visit.operations.database
    project_id, user_id = asked.segments["project_id"], asked.segments["user_id"]
    act = asked.sent("act")
    if act == "set-role":
        project_members.update(
            database,
            administrator,
            project_id,
            user_id,
            visit.asked.sent_choice("role", ProjectRole),
        )
    elif act == "remove":
        project_members.remove(database, administrator, project_id, user_id)
    else:
        raise Error(Kind.INVALID, "The form does not say what to do with the person.")
    return rendering.to(_page_of(project_id))


def _page_of(project_id: str) -> str:
    return HERE.format(project_id=segment(project_id))


PAGES = (
    Page("GET", HERE, list_members),
    Page("POST", HERE, add_member),
    Page("POST", f"{HERE}/{{user_id}}", change_member),
)

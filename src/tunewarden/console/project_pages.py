"""Projects, and one with its API keys and what it may send and store."""

from collections.abc import Sequence

from starlette.responses import Response

from tunewarden.console import lists, rendering, tables
from tunewarden.console.administration import administered, shown_key
from tunewarden.console.paths import Page
from tunewarden.console.project_key_pages import KEYS
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.identity import key_format, project_members, projects
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import SCOPES
from tunewarden.identity.projects import Project
from tunewarden.registry import rate_limits
from tunewarden.registry.limit_commands import PREFIX, LimitCommands
from tunewarden.registry.quota import QuotaChange
from tunewarden.registry.rate_limits import Change

HERE = "/console/projects"
LIMITS_SHOWN = MEMBERS_SHOWN = 100


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Project], str | None]:
    found = projects.page(
        visit.operations.database,
        shown_key(visit),
        include_archived=True,
        after=after,
        limit=limit + 1,
    )
    return lists.cut(found, lambda one: one.id, limit)


PROJECTS = Table[Project](
    "projects",
    _read,
    {
        "id": lambda one: one.id,
        "name": lambda one: one.name,
        "default": lambda one: one.is_default,
        "created_at": lambda one: tables.instant(one.created_at),
        "archived_at": lambda one: tables.instant(one.archived_at),
    },
)


@administered
@tables.also_as(PROJECTS)
def list_projects(visit: Visit, _: Administrator) -> Response:
    """Return a page of projects, the newest first."""
    return rendering.page(visit, "projects.html", PROJECTS.page(visit)[1])


@administered
def create_project(visit: Visit, administrator: Administrator) -> Response:
    """Make a project, and lead to it."""
    made = projects.add(visit.operations.database, administrator, visit.asked.sent("name").strip())
    return rendering.to(f"{HERE}/{segment(made.id)}")


@administered
@tables.also_as(KEYS)
def show_project(visit: Visit, administrator: Administrator) -> Response:
    """Return a project: a page of its keys, the forms that make one, its limits and its quota."""
    database, project_id = visit.operations.database, visit.asked.segments["project_id"]
    project = projects.retrieve(database, administrator, project_id)
    _, values = KEYS.page(visit)
    limits = _limits(visit)
    most, stored = limits.quota_of(administrator, project_id)
    values |= {
        "project": project,
        "redacted": key_format.redacted,
        "members": project_members.page(
            database, administrator, project_id, after=None, limit=MEMBERS_SHOWN
        ),
        "members_shown": MEMBERS_SHOWN,
        "administrator": administrator,
        "scopes": sorted(SCOPES),
        "limits": limits.page(
            administrator, project_id, after=None, before=None, limit=LIMITS_SHOWN
        ),
        "prefix": PREFIX,
        "no_limit": rate_limits.NO_LIMIT,
        "most": most,
        "stored": stored,
    }
    return rendering.page(visit, "project.html", values)


@administered
def change_limit(visit: Visit, administrator: Administrator) -> Response:
    """Set what the project may send to a base in a minute, its fine-tunes included."""
    asked, project_id = visit.asked, visit.asked.segments["project_id"]
    change = Change(visit.asked.sent_number("requests"), visit.asked.sent_number("tokens"))
    _limits(visit).update(administrator, project_id, asked.sent("rate_limit"), change)
    return rendering.to(f"{HERE}/{segment(project_id)}")


@administered
def change_quota(visit: Visit, administrator: Administrator) -> Response:
    """Set what the project may have."""
    project_id = visit.asked.segments["project_id"]
    change = QuotaChange(
        visit.asked.sent_number("bytes"),
        visit.asked.sent_number("files"),
        visit.asked.sent_number("models"),
    )
    _limits(visit).update_quota(administrator, project_id, change)
    return rendering.to(f"{HERE}/{segment(project_id)}")


def _limits(visit: Visit) -> LimitCommands:
    of = visit.operations
    return LimitCommands(of.database, of.rate_limits, of.quota)


PAGES = (
    Page("GET", HERE, list_projects),
    Page("POST", HERE, create_project),
    Page("GET", f"{HERE}/{{project_id}}", show_project),
    Page("POST", f"{HERE}/{{project_id}}/limits", change_limit),
    Page("POST", f"{HERE}/{{project_id}}/quota", change_quota),
)

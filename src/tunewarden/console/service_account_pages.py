"""Service accounts of a project: made with a key that is shown once, given another role or key, deleted.

Who does so proves who it is.
"""

from collections.abc import Sequence

from starlette.responses import Response

from tunewarden.console import confirming, lists, rendering, tables
from tunewarden.console.administration import administered, shown_key
from tunewarden.console.paths import Page
from tunewarden.console.project_key_pages import (
    DAY_SECONDS,
    attempt_of,
    scopes_of,
    seconds_sent,
    show_once,
)
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.errors import Error, Kind
from tunewarden.identity import projects, service_accounts
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import ServiceAccountRole
from tunewarden.identity.service_accounts import ServiceAccount

HERE = "/console/projects/{project_id}/service-accounts"
PROVED = {
    "set-role": "Change the role",
    "create-key": "Create the key",
    "delete": "Delete the service account",
}


def _read(
    visit: Visit, after: str | None, limit: int
) -> tuple[Sequence[ServiceAccount], str | None]:
    found = service_accounts.page(
        visit.operations.database,
        shown_key(visit),
        visit.asked.segments["project_id"],
        after=after,
        limit=limit + 1,
    )
    return lists.cut(found, lambda one: one.id, limit)


ACCOUNTS = Table[ServiceAccount](
    "service-accounts",
    _read,
    {
        "id": lambda one: one.id,
        "name": lambda one: one.name,
        "role": lambda one: one.role.value,
        "created_at": lambda one: tables.instant(one.created_at),
    },
)


@administered
@tables.also_as(ACCOUNTS)
def list_accounts(visit: Visit, administrator: Administrator) -> Response:
    """Return a page of the project's service accounts, the newest first, with the form that makes one."""
    database, project_id = visit.operations.database, visit.asked.segments["project_id"]
    _, values = ACCOUNTS.page(visit)
    values |= {
        "project": projects.retrieve(database, administrator, project_id),
        "roles": [one.value for one in ServiceAccountRole],
    }
    return rendering.page(visit, "service_accounts.html", values)


@confirming.proved("Create the service account")
@administered
def create_account(visit: Visit, administrator: Administrator) -> Response:
    """Make a service account, a member of its project, and show its key once."""
    project_id = visit.asked.segments["project_id"]
    account, made = service_accounts.create(
        visit.operations.database,
        administrator,
        project_id,
        name=visit.asked.sent("name").strip(),
        expires_in_seconds=seconds_sent(visit, "expires_in_days", DAY_SECONDS),
        attempt=attempt_of(visit),
    )
    assert made is not None, "it was made with a key"
    return show_once(visit, account.name, made.text, back=_page_of(project_id))


@confirming.proved(PROVED)
@administered
def change_account(visit: Visit, administrator: Administrator) -> Response:
    """Give a service account another role or another key, or delete it with its keys."""
    asked, database = visit.asked, visit.operations.database
    which = asked.segments["project_id"], asked.segments["account_id"]
    act, back = asked.sent("act"), _page_of(which[0])
    if act == "set-role":
        role = asked.sent_choice("role", ServiceAccountRole)
        service_accounts.update(database, administrator, *which, name=None, role=role)
    elif act == "create-key":
        made = service_accounts.create_key(
            database,
            administrator,
            *which,
            name=asked.sent("name").strip() or None,
            scopes=scopes_of(visit),
            expires_in_seconds=seconds_sent(visit, "expires_in_days", DAY_SECONDS),
            attempt=attempt_of(visit),
        )
        return show_once(visit, made.key.name, made.text, back=back)
    elif act == "delete":
        service_accounts.remove(database, administrator, *which)
    else:
        raise Error(Kind.INVALID, "The form does not say what to do with the service account.")
    return rendering.to(back)


def _page_of(project_id: str) -> str:
    return HERE.format(project_id=segment(project_id))


PAGES = (
    Page("GET", HERE, list_accounts),
    Page("POST", HERE, create_account),
    Page("POST", f"{HERE}/{{account_id}}", change_account),
)

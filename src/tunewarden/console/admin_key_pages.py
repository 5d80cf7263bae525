"""Admin keys: made, shown once, and revoked. Who does so proves who it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from tunewarden.console import confirming, lists, rendering, tables
from tunewarden.console.administration import administered, shown_key
from tunewarden.console.paths import Page
from tunewarden.console.project_key_pages import DAY_SECONDS, attempt_of, seconds_sent, show_once
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.identity import admin_key_commands, key_format
from tunewarden.identity.admin_keys import Administrator, AdminKey
from tunewarden.registry import usage

HERE = "/console/admin-keys"


@dataclass(frozen=True, slots=True)
class Used:
    """An admin key, and when it was last used, in microseconds."""

    key: AdminKey
    last_used_at: int | None


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Used], str | None]:
    database = visit.operations.database
    found = admin_key_commands.page(
        database, shown_key(visit), is_ascending=False, after=after, limit=limit + 1
    )
    rows, cursor = lists.cut(found, lambda one: one.id, limit)
    with database.read() as tx:
        used = usage.last_uses_of_keys(tx, [one.id for one in rows])
    return [Used(one, used.get(one.id)) for one in rows], cursor


ADMIN_KEYS = Table[Used](
    "admin-keys",
    _read,
    {
        "id": lambda one: one.key.id,
        "name": lambda one: one.key.name,
        "user_id": lambda one: one.key.user_id,
        "user_name": lambda one: one.key.user_name,
        "created_at": lambda one: tables.instant(one.key.created_at),
        "last_used_at": lambda one: tables.instant(one.last_used_at),
        "expires_at": lambda one: tables.instant(one.key.expires_at),
    },
)


@administered
@tables.also_as(ADMIN_KEYS)
def list_admin_keys(visit: Visit, administrator: Administrator) -> Response:
    """Return a page of admin keys, the newest first, with the form that makes one."""
    _, values = ADMIN_KEYS.page(visit)
    values |= {"own": administrator.key_id, "redacted": key_format.redacted}
    return rendering.page(visit, "admin_keys.html", values)


@confirming.proved("Create the admin key")
@administered
def create_admin_key(visit: Visit, administrator: Administrator) -> Response:
    """Make an admin key of the administrator or of another Owner, and show it once."""
    asked = visit.asked
    made, text = admin_key_commands.create(
        visit.operations.database,
        administrator,
        name=asked.sent("name").strip(),
        user_id=asked.sent("user_id").strip() or None,
        expires_in_seconds=seconds_sent(visit, "expires_in_days", DAY_SECONDS),
        attempt=attempt_of(visit),
    )
    return show_once(visit, made.name, text, back=HERE)


@confirming.proved("Revoke the admin key")
@administered
def revoke_admin_key(visit: Visit, administrator: Administrator) -> Response:
    """Revoke an admin key for good; sessions that administer with it do so no more."""
    key_id = visit.asked.segments["key_id"]
    admin_key_commands.revoke(visit.operations.database, administrator, key_id)
    return rendering.to(HERE)


PAGES = (
    Page("GET", HERE, list_admin_keys),
    Page("POST", HERE, create_admin_key),
    Page("POST", f"{HERE}/{{key_id}}", revoke_admin_key),
)

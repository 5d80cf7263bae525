"""API keys of a project: made, rotated, each shown once, and revoked. Who does so proves who it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from tunewarden.console import confirming, lists, rendering, tables
from tunewarden.console.administration import administered, shown_key
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, key_rows, project_keys
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.key_rows import LIFE_SECONDS_MAX, KeyRow
from tunewarden.identity.project_keys import KeyOwner
from tunewarden.registry import rate_limits, usage

HERE = "/console/projects/{project_id}/keys"
DAY_SECONDS = 86_400
HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key as a list shows it. `last_used_at` in microseconds."""

    key: KeyRow
    owner: KeyOwner
    last_used_at: int | None
    is_for_sso: bool


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[ShownKey], str | None]:
    database = visit.operations.database
    project_id = visit.asked.segments["project_id"]
    found = project_keys.page(database, shown_key(visit), project_id, after=after, limit=limit + 1)
    rows, cursor = lists.cut(found, lambda one: one.key.id, limit)
    ids = [one.key.id for one in rows]
    with database.read() as tx:
        used, for_sso = usage.last_uses_of_keys(tx, ids), key_rows.for_sso_among(tx, ids)
    return [
        ShownKey(one.key, one.owner, used.get(one.key.id), one.key.id in for_sso) for one in rows
    ], cursor


KEYS = Table[ShownKey](
    "keys",
    _read,
    {
        "id": lambda one: one.key.id,
        "redacted": lambda one: key_format.redacted(one.key.id),
        "name": lambda one: one.key.name,
        "owner": lambda one: one.owner.name,
        "owner_id": lambda one: one.owner.id,
        "has_access": lambda one: one.owner.has_access,
        "scopes": lambda one: " ".join(one.key.scopes),
        "created_at": lambda one: tables.instant(one.key.created_at),
        "last_used_at": lambda one: tables.instant(one.last_used_at),
        "expires_at": lambda one: tables.instant(one.key.expires_at),
        "single_sign_on": lambda one: one.is_for_sso,
    },
)


@confirming.proved("Create the key")
@administered
def create_key(visit: Visit, administrator: Administrator) -> Response:
    """Make an API key of a person in the project, and show it once."""
    asked, project_id = visit.asked, visit.asked.segments["project_id"]
    made, text = project_keys.create(
        visit.operations.database,
        administrator,
        project_id,
        user_id=asked.sent("user_id").strip(),
        name=asked.sent("name").strip(),
        scopes=scopes_of(visit),
        expires_in_seconds=seconds_sent(visit, "expires_in_days", DAY_SECONDS),
        attempt=attempt_of(visit),
    )
    return show_once(visit, made.key.name, text, back=_project(project_id))


@confirming.proved("Rotate the key")
@administered
def rotate_key(visit: Visit, administrator: Administrator) -> Response:
    """Make a key like another one, which ends after a while, and show it once."""
    segments = visit.asked.segments
    project_id = segments["project_id"]
    made, text, old = project_keys.rotate(
        visit.operations.database,
        administrator,
        project_id,
        segments["key_id"],
        overlap_seconds=seconds_sent(visit, "overlap_hours", HOUR_SECONDS),
        expires_in_seconds=seconds_sent(visit, "expires_in_days", DAY_SECONDS),
        attempt=attempt_of(visit),
        share_limit=rate_limits.share_of_key,
    )
    return show_once(
        visit, made.key.name, text, back=_project(project_id), old_ends_at=old.expires_at
    )


@confirming.proved("Revoke the key")
@administered
def revoke_key(visit: Visit, administrator: Administrator) -> Response:
    """Revoke an API key for good."""
    segments = visit.asked.segments
    project_id = segments["project_id"]
    project_keys.revoke(visit.operations.database, administrator, project_id, segments["key_id"])
    return rendering.to(_project(project_id))


def show_once(
    visit: Visit, name: str, text: str, *, back: str, old_ends_at: int | None = None
) -> Response:
    """Return the page of a key that was just made. `old_ends_at`: when the one ends that it takes the place of."""
    values = {"name": name, "text": text, "back": back, "old_ends_at": old_ends_at}
    return rendering.page(visit, "new_key.html", values)


def scopes_of(visit: Visit) -> list[str]:
    """Return the scopes that were chosen; none is no restriction."""
    return [one for one in visit.asked.form.get("scopes", []) if one]


def attempt_of(visit: Visit) -> str:
    """Return which attempt to make a key a form is; the same text sent to another address is another attempt."""
    sent = visit.asked.sent("attempt")
    return f"{visit.asked.request.scope['path']} {sent}" if sent else ""


def seconds_sent(visit: Visit, name: str, unit_seconds: int) -> int | None:
    """Return a length of time that was typed in some unit; None if it was left empty. Raises Error(INVALID)."""
    typed, most = visit.asked.sent_number(name), LIFE_SECONDS_MAX // unit_seconds
    if typed is not None and not 1 <= typed <= most:
        said = f"'{name.replace('_', ' ')}' must be a whole number from 1 to {most}."
        raise Error(Kind.INVALID, said, param=name)
    return None if typed is None else typed * unit_seconds


def _project(project_id: str) -> str:
    return f"/console/projects/{segment(project_id)}"


PAGES = (
    Page("POST", HERE, create_key),
    Page("POST", f"{HERE}/{{key_id}}", revoke_key),
    Page("POST", f"{HERE}/{{key_id}}/rotate", rotate_key),
)

"""One's own sessions: since when, how each began, and ending them."""

from collections.abc import Sequence

from starlette.responses import Response

from tunewarden.console import lists, rendering, tables
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, own_sessions
from tunewarden.identity.own_sessions import OwnSession

HERE = "/console/sessions"


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[OwnSession], str | None]:
    database, session = visit.operations.database, visit.session
    found = own_sessions.page(database, session, after=after, limit=limit + 1)
    return lists.cut(found, lambda one: one.row.id, limit)


SESSIONS = Table[OwnSession](
    "sessions",
    _read,
    {
        "id": lambda one: one.row.id,
        "begun_at": lambda one: tables.instant(one.row.created_at),
        "by": lambda one: one.row.began_by,
        "key_id": lambda one: one.row.key_id,
        "key_name": lambda one: one.key_name,
        "last_used_at": lambda one: tables.instant(one.row.last_seen_at),
    },
)


@tables.also_as(SESSIONS)
def list_sessions(visit: Visit) -> Response:
    """Return a page of the person's sessions, the newest first."""
    values = {**SESSIONS.page(visit)[1], "redacted": key_format.redacted}
    return rendering.page(visit, "sessions.html", values)


def end_session(visit: Visit) -> Response:
    """End one of them, at once and on every worker."""
    session_id = visit.asked.segments["session_id"]
    own_sessions.end(visit.operations.database, visit.session, session_id)
    return rendering.to(HERE)


def end_others(visit: Visit) -> Response:
    """End all but this one."""
    if visit.asked.sent("act") != "end-others":
        raise Error(Kind.INVALID, "The form does not say what to do with the sessions.")
    own_sessions.end_others(visit.operations.database, visit.session)
    return rendering.to(HERE)


PAGES = (
    Page("GET", HERE, list_sessions),
    Page("POST", HERE, end_others),
    Page("POST", f"{HERE}/{{session_id}}", end_session),
)

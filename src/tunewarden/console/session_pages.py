"""One's own sessions: since when, how each began, and ending them."""

from starlette.responses import Response

from tunewarden.console import lists, rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, own_sessions

HERE = "/console/sessions"


def list_sessions(visit: Visit) -> Response:
    """Return a page of the person's sessions, the newest first."""
    found = own_sessions.page(
        visit.operations.database,
        visit.session,
        after=visit.asked.asked_for("after") or None,
        limit=lists.PAGE_ROWS + 1,
    )
    rows, cursor = lists.cut(found, lambda one: one.row.id)
    values = {"rows": rows, "redacted": key_format.redacted, **lists.paged(visit, cursor)}
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

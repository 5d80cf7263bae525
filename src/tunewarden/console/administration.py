"""Administration at the console: only an admin key administers, so a session shows one once before it may.

A session keeps which key that was. Each request reads the key and its Owner again, and each operation once more in its
own transaction: what a revoked key opened is closed at once (I19).
"""

from collections.abc import Callable
from functools import wraps
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api import refused_requests
from tunewarden.api.refused_requests import Tried
from tunewarden.console import rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, sessions
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.key_format import Presented

HERE = "/console/administration"
OPERATION = f"POST {HERE}"
Answer = Callable[[Visit, Administrator], Response]


def administered(answer: Answer) -> Callable[[Visit], Response]:
    """Return a page that leads to the form for an admin key while the session has shown none."""

    @wraps(answer)
    def guarded(visit: Visit) -> Response:
        administrator = visit.session.administrator
        if administrator is not None:
            return answer(visit, administrator)
        if visit.asked.request.method not in {"GET", "HEAD"}:
            raise Error(Kind.FORBIDDEN, "Show an admin key first: open People or Usage.")
        query = visit.asked.request.url.query
        wanted = visit.asked.request.scope["path"] + (f"?{query}" if query else "")
        return rendering.to(f"{HERE}?next={quote(wanted, safe='')}")

    return guarded


def shown_key(visit: Visit) -> Administrator:
    """Return who administers, for what only pages behind `administered` read."""
    administrator = visit.session.administrator
    assert administrator is not None, "the page's door has looked"
    return administrator


def show(visit: Visit) -> Response:
    """Return the form that asks for an admin key."""
    return _form(visit, visit.asked.asked_for("next"))


async def begin(visit: Visit) -> Response:
    """Let the session administer with the admin key that was typed."""
    asked, database = visit.asked, visit.operations.database
    presented: Presented | None = None
    try:
        presented = key_format.present(asked.sent("key").strip())
        await run_in_threadpool(sessions.administer, database, visit.session, presented)
    except Error as refused:
        if refused.kind not in {Kind.UNAUTHENTICATED, Kind.FORBIDDEN}:
            raise
        asked.services.proofs.take(asked.operations.clock)
        tried = Tried(presented, asked.request_id, OPERATION)
        await refused_requests.record_wrong_key(database, refused, tried, even_unknown=False)
        return await run_in_threadpool(_form, visit, asked.sent("next"), refused)
    return rendering.to(rendering.ours(asked.sent("next"), "/console/people"))


def end(visit: Visit) -> Response:
    """Take the admin key from the session; it goes on."""
    sessions.stop_administering(visit.operations.database, visit.session)
    return rendering.to("/console")


def _form(visit: Visit, after: str, refused: Error | None = None) -> Response:
    values = {"next": after, "message": refused.message if refused else ""}
    status = 200 if refused is None else 403
    return rendering.page(visit, "administration.html", values, status=status)


PAGES = (
    Page("GET", HERE, show),
    Page("POST", HERE, begin),
    Page("POST", f"{HERE}/end", end),
)

"""Signing in, by an API key that is posted once or by a link that works once, and signing out."""

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api import refused_requests
from tunewarden.api.refused_requests import Tried
from tunewarden.console import rendering
from tunewarden.console.oidc import setup
from tunewarden.console.paths import OpenPage, Page
from tunewarden.console.requests import Asked, Visit
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, sessions
from tunewarden.identity.key_format import Presented
from tunewarden.identity.sessions import NewSession

HOME = "/console"
OPERATION = "POST /console/sign-in"


def show(asked: Asked) -> Response:
    """Return the form that asks for an API key."""
    return _form(asked, asked.asked_for("next"))


async def sign_in(asked: Asked) -> Response:
    """Begin a session with the key that was typed."""
    presented: Presented | None = None
    database, after = asked.operations.database, asked.sent("next")
    try:
        presented = key_format.present(asked.sent("key").strip())
        began = await run_in_threadpool(sessions.sign_in, database, presented, asked.request_id)
    except Error as refused:
        if refused.kind not in {Kind.UNAUTHENTICATED, Kind.FORBIDDEN}:
            raise
        # Only wrong keys are counted: guessing must not lock out the holder of a valid one.
        asked.services.sign_ins.take(asked.operations.clock)
        tried = Tried(presented, asked.request_id, OPERATION)
        await refused_requests.record_wrong_key(database, refused, tried, even_unknown=False)
        return await run_in_threadpool(_form, asked, after, refused)
    return await _welcome(asked, began, after)


async def show_link(asked: Asked) -> Response:
    """Return the page of a link, with one button: what only looks at links uses none up."""
    token = asked.segments["token"]
    if not await run_in_threadpool(sessions.is_open, asked.operations.database, token):
        asked.services.links.take(asked.operations.clock)
        raise sessions.no_link()
    return await run_in_threadpool(rendering.page, None, "link.html", {"token": token})


async def open_link(asked: Asked) -> Response:
    """Begin the session of a link."""
    database, token = asked.operations.database, asked.segments["token"]
    try:
        began = await run_in_threadpool(sessions.open_link, database, token, asked.request_id)
    except Error as refused:
        if refused.kind is Kind.UNAUTHENTICATED:
            asked.services.links.take(asked.operations.clock)
        raise
    return await _welcome(asked, began, "")


def sign_out(visit: Visit) -> Response:
    """End the session."""
    sessions.sign_out(visit.operations.database, visit.session)
    response = rendering.to("/console/sign-in")
    response.headers["set-cookie"] = visit.asked.way.set_cookie("", ends=True)
    response.headers["clear-site-data"] = '"cache"'
    return response


def _form(asked: Asked, after: str, refused: Error | None = None) -> Response:
    values = {
        "next": after,
        "message": refused.message if refused else "",
        "has_sso": setup.is_wanted(asked.operations.config),
    }
    return rendering.page(None, "sign_in.html", values, status=401 if refused else 200)


async def _welcome(asked: Asked, began: NewSession, after: str) -> Response:
    """Lead to the page that was wanted, which must be ours. The browser's session until now ends."""
    before = asked.request.cookies.get(asked.way.cookie)
    if before is not None:
        database = asked.operations.database
        await run_in_threadpool(sessions.leave, database, before, asked.request_id)
    response = rendering.to(rendering.ours(after, HOME))
    response.headers["set-cookie"] = asked.way.set_cookie(began.secret)
    return response


PAGES = (
    OpenPage("GET", "/console/sign-in", show),
    OpenPage("POST", "/console/sign-in", sign_in),
    OpenPage("GET", "/console/links/{token}", show_link),
    OpenPage("POST", "/console/links/{token}", open_link),
    Page("POST", "/console/sign-out", sign_out),
)

"""Templates, and the headers of every page. Nothing comes from elsewhere, and nothing runs but our own modules."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from tunewarden import problems
from tunewarden.console import shown, statics
from tunewarden.console.navigation import NAVIGATION
from tunewarden.console.requests import Visit
from tunewarden.errors import Error, Kind
from tunewarden.ids import token

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A form that has an attempt, sent twice, is one request.
ATTEMPT_LENGTH = 32
FIRST_PAGE = "/console", "Go to the first page"
SIGN_IN = "/console/sign-in", "Sign in"
UNAUTHORIZED = 401
HEADERS = {
    "content-security-policy": POLICY,
    # With "no-referrer" browsers would not say either of a form that it is ours.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
TITLES = {
    Kind.FORBIDDEN: "Not allowed",
    Kind.NOT_FOUND: "Not found",
    Kind.CONFLICT: "Something is in the way",
    Kind.PRECONDITION_FAILED: "It has changed",
    Kind.UNAUTHENTICATED: "Sign in again",
    Kind.RATE_LIMITED: "Too many requests",
    Kind.UNAVAILABLE: "Not available now",
    Kind.STORAGE_FULL: "The disk is full",
}

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_environment.filters |= shown.FILTERS
_environment.globals |= {"static": statics.address, "new_attempt": partial(token, ATTEMPT_LENGTH)}


def page(
    visit: Visit | None,
    template: str,
    values: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
) -> Response:
    """Return a page. `visit` is None for who is not signed in."""
    given = {"visit": visit, "navigation": NAVIGATION, "path": "", "status": status}
    if visit is not None:
        given["path"] = visit.asked.request.scope["path"]
    text = _environment.get_template(template).render(given | dict(values or {}))
    return Response(text, status, media_type="text/html; charset=utf-8")


def to(location: str) -> Response:
    """Return a redirect after a form: the browser gets the page that it leads to."""
    return Response(status_code=303, headers={"location": location})


def ours(address: str, otherwise: str) -> str:
    """Return an address that a form or a query gave, if it is one of the console's."""
    is_ours = address.startswith("/console/") and address.isascii() and address.isprintable()
    return address if is_ours else otherwise


def back(visit: Visit, otherwise: str) -> Response:
    """Return a redirect after a form to the page that the form names, if it is one of the console's."""
    return to(ours(visit.asked.sent("then"), otherwise))


def refusal(
    error: Exception, visit: Visit | None, way_on: tuple[str, str] | None = None
) -> Response:
    """Return an error as a page, with its status. `way_on`: the address of a link that leads on, and its words."""
    wire = problems.wire(error)
    if way_on is None:
        way_on = SIGN_IN if wire.status == UNAUTHORIZED else FIRST_PAGE
    title, message = "An error of the server", problems.INTERNAL
    if isinstance(error, Error):
        title, message = TITLES.get(error.kind, "This did not work"), error.message
    values = {"title": title, "message": message, "way_on": way_on}
    response = page(visit, "refusal.html", values, status=wire.status)
    response.headers.update(advice(error))
    return response


def advice(error: Exception) -> dict[str, str]:
    """Return the headers of an error that a browser understands."""
    named = dict(problems.wire(error).headers)
    after = named.get(b"retry-after")
    return {} if after is None else {"retry-after": after.decode()}

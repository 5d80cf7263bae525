"""A form that was refused is shown again: with what was typed, and with why beside the field that it is about.

The page is the one with the form. Only fields that a template asks for come back: never a key or another secret, and a
template must not ask for one.
"""

from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from tunewarden import problems
from tunewarden.console.paths import OpenPage, Page
from tunewarden.console.requests import Asked, Refused, Visit
from tunewarden.errors import Error, Kind

# What a person mends in the form, or sends again later. Other refusals are not about what was typed.
MENDED = frozenset(
    {
        Kind.INVALID,
        Kind.NOT_FOUND,
        Kind.CONFLICT,
        Kind.PRECONDITION_FAILED,
        Kind.TOO_LARGE,
        Kind.RATE_LIMITED,
        Kind.QUOTA_EXCEEDED,
        Kind.UNAVAILABLE,
        Kind.STORAGE_FULL,
    }
)
Found = tuple[Page | OpenPage, dict[str, str]]


def of(visit: Visit, error: Error, at: str, found: Found) -> Visit | None:
    """Return the visit of the page `at` an address, which shows the refused form; None if that would not help."""
    request = visit.asked.request
    page, segments = found
    if error.kind not in MENDED or request.method != "POST" or isinstance(page, OpenPage):
        return None
    path, _, query = at.partition("?")
    scope = {
        **request.scope,
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "route": page.route,
        "path_params": segments,
    }
    asked: Asked = replace(visit.asked, request=Request(scope), segments=segments)
    refused = Refused(error.message, error.param, request.scope["path"], visit.asked.form)
    return Visit(asked, visit.session, refused)


def answered(response: Response, error: Error, headers: Mapping[str, str]) -> Response | None:
    """Return the page as the answer to the refused form; None if it is no page, or one of something else."""
    kind = response.headers.get("content-type", "")
    if response.status_code != 200 or not kind.startswith("text/html"):
        return None
    response.status_code = problems.WIRE[error.kind][0]
    response.headers.update(headers)
    return response

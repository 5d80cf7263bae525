"""`/invites/{token}`: the page of a link. It needs no key, no script, and tells no other site where it was opened.

A program posts JSON and gets JSON. The token is in the path only: neither the access log nor metrics have paths.
"""

from html import escape
from urllib.parse import parse_qs

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tunewarden import problems
from tunewarden.api.administration import invite_schemas as schemas
from tunewarden.api.administration.bodies import Body
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.docs_page import POLICY, STYLE
from tunewarden.api.parameters import Segment, read_body, read_object, services_of
from tunewarden.api.services import Services
from tunewarden.artifacts.strict_json import is_text
from tunewarden.errors import Error, Kind
from tunewarden.identity import invites
from tunewarden.identity.invites import Accepted

FORM = "application/x-www-form-urlencoded"
BODY_BYTES_MAX = 4096
FIELDS_MAX = 8
HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": f"{POLICY}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}

routes = APIRouter(prefix="/invites")


@routes.get("/{token}")
async def show_invite(request: Request, token: Segment) -> Response:
    """Return the page of a link: it asks for a name. Opening it changes nothing."""
    services = services_of(request)
    try:
        organization = await _organization_of(services, token)
    except Error as error:
        return _refusal(error)
    return _page("Invitation", _form(organization), 200)


@routes.post("/{token}")
async def accept_invite(request: Request, token: Segment) -> Response:
    """Make the user of a link, and show one API key once."""
    is_form = request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM
    services = services_of(request)
    try:
        await _organization_of(services, token)
        name = await (_name_of_form(request) if is_form else _name_of_json(request))
        made = await run_in_threadpool(
            invites.accept, services.operations.database, token, name, request.state.request_id
        )
    except Error as error:
        if not is_form:
            raise
        return _refusal(error)
    if is_form:
        return _page("Welcome", _welcome(made, services.operations.config.public_url), 200)
    return JsonAnswer(
        schemas.Accepted(
            "organization.invite.accepted",
            made.user_id,
            made.organization,
            made.project_id,
            made.api_key,
        ),
        headers=HEADERS,
    )


async def _organization_of(services: Services, token: str) -> str:
    """Return whom a link invites to. Only links that do nothing are limited: a guesser must not stop who was invited."""
    try:
        return await run_in_threadpool(invites.organization_of, services.operations.database, token)
    except Error:
        services.links.take(services.operations.clock)
        raise


async def _name_of_json(request: Request) -> str:
    body = Body(await read_object(request))
    body.check("name")
    return body.required_text("name").strip()


async def _name_of_form(request: Request) -> str:
    body = await read_body(request, BODY_BYTES_MAX)
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=FIELDS_MAX, errors="strict")
        name = fields.get("name", [""])[0].strip()
    except UnicodeError as error:
        raise Error(Kind.INVALID, "The form is not in UTF-8.", param="name") from error
    except ValueError as error:
        said = f"The form has more than {FIELDS_MAX} fields: send 'name' only."
        raise Error(Kind.INVALID, said) from error
    if not is_text(name):
        raise Error(Kind.INVALID, "The name is not text.", param="name")
    return name


def _form(organization: str) -> str:
    return (
        f"<p>You are invited to the organization <b>{escape(organization)}</b>.</p>"
        '<form method="post"><p><label for="name">Your name</label><br>'
        '<input id="name" name="name" required maxlength="100" autocomplete="name" autofocus></p>'
        "<p><button>Accept</button></p></form>"
        "<p>You then get an API key, which is shown once: have a place ready where you keep it.</p>"
    )


def _welcome(made: Accepted, public_url: str) -> str:
    said = f"<p>{escape(made.name)} is now a user of <b>{escape(made.organization)}</b>.</p>"
    if made.api_key is None:
        return f"{said}<p>You are in no project yet: an Owner adds you to one.</p>"
    base = f"{public_url}/v1" if public_url != "none" else "/v1 of this address"
    return (
        f"{said}<p>Your API key. It is shown only now:</p><p><code>{escape(made.api_key)}</code></p>"
        f"<p>It works in the project <code>{escape(made.project_id or '')}</code>. Clients use it with the base URL"
        f" <code>{escape(base)}</code>.</p>"
    )


def _refusal(error: Error) -> Response:
    """Return an error as a page, with its status."""
    wire = problems.wire(error)
    back = "<p>Go back to correct it.</p>" if error.kind is Kind.INVALID else ""
    response = _page("Invitation", f"<p>{escape(error.message)}</p>{back}", wire.status)
    for name, value in wire.headers:
        if name == b"retry-after":
            response.headers["retry-after"] = value.decode()
    return response


def _page(title: str, content: str, status: int) -> Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>"
        f"{content}</main></body></html>\n"
    )
    return Response(text, status, media_type="text/html", headers=HEADERS)

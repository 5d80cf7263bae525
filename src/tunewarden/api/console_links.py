"""`/v1/console/links`: links that sign in to the console once, so that no key is typed into a browser."""

from fastapi import APIRouter
from starlette.requests import Request

from tunewarden.api import own_address
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InContext
from tunewarden.api.schemas import ConsoleLink
from tunewarden.identity import sessions

routes = APIRouter(prefix="/v1/console")


@routes.post("/links")
def make_console_link(context: InContext, request: Request) -> JsonAnswer:
    """Make a link that signs in to the console once, within ten minutes, as the caller's key."""
    made = sessions.make_link(context.operations.database, context.caller)
    address = own_address.of(context.operations.config, request)
    return JsonAnswer(
        ConsoleLink(
            "console.link",
            f"{address}/console/links/{made.secret}",
            made.expires_at // 1_000_000,
        )
    )

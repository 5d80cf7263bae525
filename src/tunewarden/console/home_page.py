"""`/console`: what needs attention, what is new, and the first steps on a new server."""

from starlette.responses import Response

from tunewarden.api import views
from tunewarden.console import needs, rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.deletion import records
from tunewarden.identity.policy import Action, allows
from tunewarden.registry import bases, model_pages
from tunewarden.registry.model_pages import Chosen

LATELY = 5


def show(visit: Visit) -> Response:
    """Return the page one comes to."""
    database, caller = visit.operations.database, visit.caller
    values = {
        "needs": needs.of(visit),
        "models": model_pages.page(database, caller, Chosen(), after=None, limit=LATELY).models
        if allows(caller, Action.READ_MODELS)
        else [],
        "deletions": [
            views.deletion_object(one)
            for one in records.page(database, caller, after=None, limit=LATELY)
        ]
        if allows(caller, Action.READ_DELETIONS)
        else [],
        "has_bases": bool(bases.list_all(database)),
    }
    return rendering.page(visit, "home.html", values)


PAGES = (Page("GET", "/console", show),)

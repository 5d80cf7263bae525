"""`/console`: what needs somebody, and the first steps on a new server."""

from starlette.responses import Response

from tunewarden.api import views
from tunewarden.console import rendering
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
    models, deletions = [], []
    if allows(caller, Action.READ_MODELS):
        models = model_pages.page(database, caller, Chosen(), after=None, limit=LATELY)
    if allows(caller, Action.READ_DELETIONS):
        found = records.page(database, caller, after=None, limit=LATELY)
        deletions = [views.deletion_object(one) for one in found]
    values = {
        "models": models,
        "deletions": deletions,
        "unfinished": [one for one in deletions if one.status == "deleting"],
        "has_bases": bool(bases.list_all(database)),
    }
    return rendering.page(visit, "home.html", values)


PAGES = (Page("GET", "/console", show),)

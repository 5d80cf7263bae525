"""Files of the project, and one file with what it was made from and what learned from it."""

from itertools import islice

from starlette.responses import Response

from tunewarden.api import plans
from tunewarden.console import lists, rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.identity.policy import Action
from tunewarden.registry.artifacts import ArtifactKind

PURPOSES = ("fine-tune", "fine-tune-results", "batch", "user_data", "evals", "assistants", "vision")


def list_files(visit: Visit) -> Response:
    """Return a page of files, the newest first."""
    wanted = lists.PAGE_ROWS + 1
    purpose = visit.asked.asked_for("purpose") or None
    found = visit.operations.files.everything(
        visit.caller,
        purpose=purpose,
        after=visit.asked.asked_for("after") or None,
        limit=wanted,
    )
    rows, cursor = lists.cut(list(islice(found, wanted)), lambda one: one.id)
    values = {
        "rows": rows,
        "purpose": purpose,
        "purposes": PURPOSES,
        **lists.paged(visit, cursor),
    }
    return rendering.page(visit, "files.html", values)


def show_file(visit: Visit) -> Response:
    """Return one file: its origin, what learned from it, and what deleting it would delete too."""
    files = visit.operations.files
    file = files.retrieve(visit.caller, visit.asked.segments["file_id"])
    values = {
        "file": file,
        "origin": files.origin_of(file),
        "delete_action": Action.DELETE,
        "plan": plans.shown(visit.context, ArtifactKind.FILE, file.id),
    }
    return rendering.page(visit, "file.html", values)


PAGES = (
    Page("GET", "/console/files", list_files),
    Page("GET", "/console/files/{file_id}", show_file),
)

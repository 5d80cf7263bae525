"""Uploads in progress: what has arrived of each, and cancelling one."""

from starlette.responses import Response

from tunewarden.console import confirming, lists, rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.identity.policy import Action

HERE = "/console/uploads"


def list_uploads(visit: Visit) -> Response:
    """Return a page of the project's uploads in progress, the newest first."""
    found = visit.operations.uploads.in_progress(
        visit.caller,
        after=visit.asked.asked_for("after") or None,
        limit=lists.PAGE_ROWS + 1,
    )
    rows, cursor = lists.cut(found, lambda one: one.upload.id)
    values = {"rows": rows, "write_action": Action.WRITE_FILES, **lists.paged(visit, cursor)}
    return rendering.page(visit, "uploads.html", values)


@confirming.proved("Cancel the upload")
def cancel_upload(visit: Visit) -> Response:
    """Cancel an upload and erase its parts."""
    visit.operations.uploads.cancel(visit.caller, visit.asked.segments["upload_id"])
    return rendering.to(HERE)


PAGES = (
    Page("GET", HERE, list_uploads),
    Page("POST", f"{HERE}/{{upload_id}}", cancel_upload),
)

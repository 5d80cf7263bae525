"""Uploads in progress: what has arrived of each, and cancelling one."""

from collections.abc import Sequence

from starlette.responses import Response

from tunewarden.console import confirming, lists, rendering, tables
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.identity.policy import Action
from tunewarden.registry.uploads import InProgress

HERE = "/console/uploads"


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[InProgress], str | None]:
    found = visit.operations.uploads.in_progress(visit.caller, after=after, limit=limit + 1)
    return lists.cut(found, lambda one: one.upload.id, limit)


UPLOADS = Table[InProgress](
    "uploads",
    _read,
    {
        "id": lambda one: one.upload.id,
        "filename": lambda one: one.upload.filename,
        "purpose": lambda one: one.upload.purpose,
        "bytes": lambda one: one.upload.bytes,
        "bytes_arrived": lambda one: one.bytes,
        "parts": lambda one: one.parts,
        "created_at": lambda one: tables.instant(one.upload.created_at),
        "expires_at": lambda one: tables.instant(one.upload.expires_at),
    },
)


@tables.also_as(UPLOADS)
def list_uploads(visit: Visit) -> Response:
    """Return a page of the project's uploads in progress, the newest first."""
    values = {**UPLOADS.page(visit)[1], "write_action": Action.WRITE_FILES}
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

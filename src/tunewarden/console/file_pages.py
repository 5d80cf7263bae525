"""Files of the project, and one file with what it was made from and what learned from it."""

from collections.abc import Sequence

from starlette.responses import Response

from tunewarden.api import plans
from tunewarden.console import lists, rendering, tables
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.identity.policy import Action
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.file_rows import File
from tunewarden.registry.files import LOOKED_AT_MAX

PURPOSES = ("fine-tune", "fine-tune-results", "batch", "user_data", "evals", "assistants", "vision")


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[File], str | None]:
    found, looked_to = visit.operations.files.page(
        visit.caller,
        purpose=visit.asked.asked_for("purpose") or None,
        after=after,
        limit=limit + 1,
    )
    rows, cursor = lists.cut(found, lambda one: one.id, limit)
    return rows, cursor or looked_to


FILES = Table[File](
    "files",
    _read,
    {
        "id": lambda one: one.id,
        "filename": lambda one: one.filename,
        "purpose": lambda one: one.purpose,
        "bytes": lambda one: one.bytes,
        "created_at": lambda one: tables.instant(one.created_at),
        "created_by": lambda one: one.created_by,
        "expires_at": lambda one: tables.instant(one.expires_at),
    },
)


@tables.also_as(FILES)
def list_files(visit: Visit) -> Response:
    """Return a page of files, the newest first."""
    rows, values = FILES.page(visit)
    values |= {
        "purpose": visit.asked.asked_for("purpose"),
        "purposes": PURPOSES,
        "looked_at": None if rows or values["next"] is None else LOOKED_AT_MAX,
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

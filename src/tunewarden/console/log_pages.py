"""The log: its checkpoint and key, the entries of one's own organization, and two checks that the browser makes."""

from starlette.responses import Response

from tunewarden.console import rendering, tables
from tunewarden.console.deletion_pages import DELETIONS
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden_receipts.note import open_checkpoint


@tables.also_as(DELETIONS)
def show_log(visit: Visit) -> Response:
    """Return the log's head, and a page of the organization's entries, the newest first."""
    log, signer = visit.operations.open_log()
    _, values = DELETIONS.page(visit)
    values |= {
        "checkpoint": open_checkpoint(log.checkpoint(), signer.key),
        "key_id": signer.key.digest(),
        "vkey": signer.vkey(),
    }
    return rendering.page(visit, "log.html", values)


PAGES = (Page("GET", "/console/log", show_log),)

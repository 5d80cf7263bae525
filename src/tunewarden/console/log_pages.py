"""The log: its checkpoint and key, the entries of one's own organization, and two checks that the browser makes."""

from starlette.responses import Response

from tunewarden.api import views
from tunewarden.console import lists, rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.deletion import records
from tunewarden_receipts.note import open_checkpoint


def show_log(visit: Visit) -> Response:
    """Return the log's head, and a page of the organization's entries, the newest first."""
    log, signer = visit.operations.open_log()
    found = records.page(
        visit.operations.database,
        visit.caller,
        after=visit.asked.asked_for("after") or None,
        limit=lists.PAGE_ROWS + 1,
    )
    rows, cursor = lists.cut([views.deletion_object(one) for one in found], lambda one: one.id)
    values = {
        "checkpoint": open_checkpoint(log.checkpoint(), signer.key),
        "key_id": signer.key.digest(),
        "vkey": signer.vkey(),
        "rows": rows,
        **lists.paged(visit, cursor),
    }
    return rendering.page(visit, "log.html", values)


PAGES = (Page("GET", "/console/log", show_log),)

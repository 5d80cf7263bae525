"""Deletion cases: what was deleted together, each member, and the receipts."""

from collections.abc import Sequence

from starlette.responses import Response

from tunewarden.api import case_views
from tunewarden.api.deletion_schemas import DeletionCase as Shown
from tunewarden.console import lists, rendering, tables
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.deletion import case_rows
from tunewarden.deletion.case_rows import Case
from tunewarden_receipts.receipt import media_type_of

# A case may have thousands; the report has all of them.
MEMBERS_SHOWN = 200


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Shown], str | None]:
    found = case_rows.page(visit.operations.database, visit.caller, after=after, limit=limit + 1)
    rows, cursor = lists.cut(found, lambda one: one.id, limit)
    return [case_views.case_object(one) for one in rows], cursor


CASES = Table[Shown](
    "cases",
    _read,
    {
        "id": lambda one: one.id,
        "status": lambda one: one.status.value,
        "file": lambda one: one.file or None,
        "members": lambda one: one.members,
        "requested_at": lambda one: tables.moment(one.requested_at),
        "requested_by": lambda one: one.requested_by,
        "finished_at": lambda one: tables.moment(one.finished_at),
        "log_index": lambda one: one.log_index,
    },
)


@tables.also_as(CASES)
def list_cases(visit: Visit) -> Response:
    """Return a page of cases, the newest first."""
    _, values = CASES.page(visit)
    return rendering.page(visit, "cases.html", values)


def show_case(visit: Visit) -> Response:
    """Return one case with its members."""
    case = _find(visit)
    members = case_rows.members_of(visit.operations.database, case)
    values = {
        "case": case_views.case_object(case, members[:MEMBERS_SHOWN]),
        "more": max(0, len(members) - MEMBERS_SHOWN),
    }
    return rendering.page(visit, "case.html", values)


def download_receipt(visit: Visit) -> Response:
    """Return the receipt of a case's summary: the exact stored bytes."""
    case = _find(visit)
    stored = case_rows.receipt_of(case)
    headers = {"content-disposition": f'attachment; filename="{case.id}.receipt.json"'}
    return Response(stored, media_type=media_type_of(stored), headers=headers)


def _find(visit: Visit) -> Case:
    return case_rows.find_own(
        visit.operations.database, visit.caller, visit.asked.segments["case_id"]
    )


PAGES = (
    Page("GET", "/console/cases", list_cases),
    Page("GET", "/console/cases/{case_id}", show_case),
    Page("GET", "/console/cases/{case_id}/receipt", download_receipt),
)

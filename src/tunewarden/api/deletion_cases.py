"""`/v1/deletion_cases`: deletions that were committed together. Readable by the whole organization, like deletions."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from tunewarden.api import case_report_page, case_views, listing, report_page
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import Context, InContext, Segment
from tunewarden.deletion import case_rows
from tunewarden.deletion.case_rows import Case
from tunewarden.deletion.cases.case_report import CaseReports
from tunewarden_receipts.receipt import media_type_of

routes = APIRouter(prefix="/v1/deletion_cases")


@routes.get("")
def list_deletion_cases(
    context: InContext,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
) -> Response:
    """List the organization's cases, newest first, without their members."""
    database = context.operations.database
    found = case_rows.page(database, context.caller, after=after, limit=limit + 1)
    return listing.page(map(case_views.case_object, found), limit)


@routes.get("/{case_id}")
def retrieve_deletion_case(context: InContext, case_id: Segment) -> JsonAnswer:
    """Return one case, with the state of every member."""
    case = _find(context, case_id)
    members = case_rows.members_of(context.operations.database, case)
    return JsonAnswer(case_views.case_object(case, members))


@routes.get("/{case_id}/receipt")
def retrieve_case_receipt(context: InContext, case_id: Segment) -> Response:
    """Return the receipt of a case's summary: the exact bytes stored with the case."""
    receipt = case_rows.receipt_of(_find(context, case_id))
    return Response(receipt, media_type=media_type_of(receipt))


@routes.get("/{case_id}/report")
def report_case(
    context: InContext,
    case_id: Segment,
    format: Literal["json", "html"] = "json",  # noqa: A002  the query's name
) -> Response:
    """Return the report of a case: what was found, deleted and held, what was not reached, and how to check it."""
    operations = context.operations
    reports = CaseReports(operations.database, operations.clock, operations.open_log)
    report = reports.of(context.caller, case_id)
    if format == "html":
        return report_page.answer(case_report_page.page(report))
    return JsonAnswer(report)


def _find(context: Context, case_id: str) -> Case:
    return case_rows.find_own(context.operations.database, context.caller, case_id)

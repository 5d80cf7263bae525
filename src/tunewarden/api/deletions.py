"""`/v1/deletions`: what was deleted, by whom, and the receipt. Readable by the whole organization."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from tunewarden.api import listing, plan_report_page, plans, report_page, views
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import Context, InContext, Segment
from tunewarden.deletion import records
from tunewarden.deletion.plan_report import PlanReports
from tunewarden.deletion.records import Deletion
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden_receipts.receipt import media_type_of

routes = APIRouter(prefix="/v1")


@routes.get("/deletions")
def list_deletions(
    context: InContext,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
) -> Response:
    """List the organization's deletions, newest first."""
    database = context.operations.database
    found = records.page(database, context.caller, after=after, limit=limit + 1)
    return listing.page(map(views.deletion_object, found), limit)


@routes.get("/models/{model_id}/deletion_plan")
def plan_deletion(context: InContext, model_id: Segment) -> JsonAnswer:
    """Return what deleting a model would also delete, and what blocks the deletion now."""
    return _plan(context, ArtifactKind.MODEL, model_id)


@routes.get("/files/{file_id}/deletion_plan")
def plan_file_deletion(context: InContext, file_id: Segment) -> JsonAnswer:
    """Return what deleting a file would erase, and what blocks the deletion now."""
    return _plan(context, ArtifactKind.FILE, file_id)


@routes.get("/files/{file_id}/deletion_plan/report")
def report_file_plan(
    context: InContext,
    file_id: Segment,
    format: Literal["json", "html"] = "json",  # noqa: A002  the query's name
) -> Response:
    """Return the report of deleting a file with its models now: what was found, what is held and why, what blocks it.

    Nothing is deleted. Only Owners read the reasons of holds.
    """
    of = context.operations
    reports = PlanReports(of.database, of.clock, of.holds, of.executor.is_served)
    report = reports.of(context.caller, file_id)
    if format == "html":
        return report_page.answer(plan_report_page.page(report))
    return JsonAnswer(report)


@routes.get("/deletions/{deletion_id}")
def retrieve_deletion(context: InContext, deletion_id: Segment) -> JsonAnswer:
    """Return one deletion."""
    return JsonAnswer(views.deletion_object(_find(context, deletion_id)))


@routes.get("/deletions/{deletion_id}/receipt")
def retrieve_receipt(context: InContext, deletion_id: Segment) -> Response:
    """Return the receipt: the exact bytes stored with the deletion."""
    receipt = records.receipt_of(_find(context, deletion_id))
    return Response(receipt, media_type=media_type_of(receipt))


def _plan(context: Context, kind: ArtifactKind, artifact_id: str) -> JsonAnswer:
    return JsonAnswer(plans.shown(context, kind, artifact_id))


def _find(context: Context, deletion_id: str) -> Deletion:
    return records.find_own(context.operations.database, context.caller, deletion_id)

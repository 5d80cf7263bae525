"""`/v1/deletions`: what was deleted, by whom, and the proof. Readable by the whole organization."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from tunewarden.api import views
from tunewarden.api.operations import Operations
from tunewarden.api.segments import Calling, Segment
from tunewarden.deletion import plan, records
from tunewarden.deletion.receipt import MEDIA_TYPE
from tunewarden.deletion.records import Deletion
from tunewarden.identity.policy import Action, Caller, authorize


def router(operations: Operations) -> APIRouter:
    """Return the routes of deletions."""
    routes = APIRouter()

    @routes.get("/v1/deletions")
    def get_deletions(
        caller: Calling, limit: Annotated[int, Query(ge=1, le=1000)] = 20, after: str | None = None
    ) -> JSONResponse:
        """List the organization's deletions, newest first."""
        authorize(caller, Action.READ_DELETIONS)
        found = records.page(
            operations.database, caller.organization_id, after=after, limit=limit + 1
        )
        shown = [views.deletion_object(deletion) for deletion in found[:limit]]
        return JSONResponse(
            {
                "object": "list",
                "data": shown,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
                "has_more": len(found) > limit,
            }
        )

    @routes.get("/v1/models/{model_id}/deletion_plan")
    def get_deletion_plan(caller: Calling, model_id: Segment) -> JSONResponse:
        """Return what deleting a model would take with it, and what forbids it now."""
        found = plan.plan(operations.database, caller, model_id)
        return JSONResponse(views.plan_object(found))

    @routes.get("/v1/deletions/{deletion_id}")
    def get_deletion(caller: Calling, deletion_id: Segment) -> JSONResponse:
        """Return one deletion."""
        return JSONResponse(views.deletion_object(_find(operations, caller, deletion_id)))

    @routes.get("/v1/deletions/{deletion_id}/receipt")
    def get_receipt(caller: Calling, deletion_id: Segment) -> Response:
        """Return the receipt, the exact bytes that were stored with the deletion."""
        receipt = records.receipt_of(_find(operations, caller, deletion_id))
        return Response(receipt, media_type=MEDIA_TYPE)

    return routes


def _find(operations: Operations, caller: Caller, deletion_id: str) -> Deletion:
    authorize(caller, Action.READ_DELETIONS)
    return records.find_own(operations.database, caller, deletion_id)

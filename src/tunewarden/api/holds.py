"""`/v1/holds`: what must not be deleted, and why. Owners place, lift and read why; others read that there is a hold."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import deletion_schemas, listing, views
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InContext, Segment, read_as
from tunewarden.errors import Error, Kind
from tunewarden.registry.artifacts import ArtifactKind

routes = APIRouter(prefix="/v1/holds")


@routes.post("")
async def place_hold(context: InContext, request: Request) -> JsonAnswer:
    """Place a hold on a model or a file: nothing deletes it until the hold is lifted."""
    wanted = await read_as(request, deletion_schemas.NewHold)
    if (wanted.model is None) == (wanted.file is None):
        raise Error(Kind.INVALID, "Name either a 'model' or a 'file' to hold.", param="model")
    kind = ArtifactKind.FILE if wanted.model is None else ArtifactKind.MODEL
    hold = await run_in_threadpool(
        context.operations.holds.place,
        context.caller,
        kind,
        wanted.model or wanted.file or "",
        wanted.reason,
    )
    return JsonAnswer(views.hold_object(hold))


@routes.get("")
def list_holds(
    context: InContext,
    *,
    artifact: str | None = None,
    in_force: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
) -> Response:
    """List holds, newest first; of one model or file, or only those in force.

    Owners see those of all projects and their reasons; others those of what they can see, without reasons.
    """
    found = context.operations.holds.page(
        context.caller, artifact_id=artifact, is_in_force=in_force, after=after, limit=limit + 1
    )
    return listing.page(map(views.hold_object, found), limit)


@routes.get("/{hold_id}")
def retrieve_hold(context: InContext, hold_id: Segment) -> JsonAnswer:
    """Return one hold."""
    return JsonAnswer(views.hold_object(context.operations.holds.find(context.caller, hold_id)))


@routes.post("/{hold_id}/lift")
def lift_hold(context: InContext, hold_id: Segment) -> JsonAnswer:
    """Lift a hold."""
    return JsonAnswer(views.hold_object(context.operations.holds.lift(context.caller, hold_id)))

"""`POST /v1/deletions`: many models or files at once, one line of JSON each, a summary last."""

from functools import partial

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.requests import Request

from tunewarden.api import bulk_schemas, bulk_views, json_lines
from tunewarden.api.parameters import Attempting, InContext, read_as
from tunewarden.deletion.bulk.bulk_deletions import Wanted
from tunewarden.errors import Error, Kind

routes = APIRouter(prefix="/v1")


@routes.post("/deletions")
async def create_deletions(
    context: InContext, request: Request, attempt: Attempting, *, dry_run: bool = False
) -> StreamingResponse:
    """Delete models and files by `ids`, or the models that a `filter` chooses; `dry_run` only says which.

    The same `Idempotency-Key` continues a request that broke off, for 30 days: what was answered stays so. `If-Match`
    takes the fingerprint of a dry run, for the request with all its repetitions. With `dry_run` it tells whether that
    still holds. Nothing is forced: `force=true` is refused (400).
    """
    sent = await read_as(request, bulk_schemas.NewDeletions)
    if attempt.force:
        said = "Many at once cannot be forced. Delete what is blocked by its id, with 'force'."
        raise Error(Kind.INVALID, said, param="force")
    criteria = None if sent.filter is None else bulk_views.criteria_of(sent.filter)
    wanted = Wanted(tuple(sent.ids or ()), criteria)
    bulk = context.operations.bulk_deletions
    begin = (
        json_lines.singly(partial(bulk.plan, context.caller, wanted, if_match=attempt.if_match))
        if dry_run
        else partial(bulk.delete, context.caller, wanted, attempt)
    )
    return await json_lines.answer(
        context.services.long_work, context.caller.organization_id, begin, bulk_views.line
    )

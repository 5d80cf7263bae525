"""`/v1/uploads`: a large file in parts, as OpenAI defines them."""

import msgspec
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import views
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.forms import FileForm
from tunewarden.api.parameters import InContext, RetryCount, Segment, read_as
from tunewarden.identity import keys
from tunewarden.identity.policy import Action
from tunewarden.registry.file_rules import Description
from tunewarden.registry.lineage import Origin
from tunewarden.registry.upload_parts import PART_BYTES_MAX


class _ExpiresAfter(msgspec.Struct):
    anchor: str
    seconds: int


class _Create(msgspec.Struct):
    bytes: int
    filename: str
    mime_type: str
    purpose: str
    expires_after: _ExpiresAfter | None = None


class _Complete(msgspec.Struct):
    part_ids: list[str]
    md5: str | None = None
    bytes: int | None = None
    derived_from: list[str] = []
    source: str | None = None


routes = APIRouter(prefix="/v1/uploads")


@routes.post("")
async def create_upload(context: InContext, request: Request) -> JsonAnswer:
    """Begin an upload."""
    context.operations.uploads.precheck(context.caller)  # before the body is read
    wanted = await read_as(request, _Create)
    expires = wanted.expires_after
    described = Description.checked(
        filename=wanted.filename,
        purpose=wanted.purpose,
        anchor=expires.anchor if expires else None,
        seconds=expires.seconds if expires else None,
    )
    upload = await run_in_threadpool(
        context.operations.uploads.create,
        context.caller,
        described,
        mime_type=wanted.mime_type,
        size=wanted.bytes,
    )
    return JsonAnswer(views.upload_object(upload, None))


@routes.post("/{upload_id}/parts")
async def add_upload_part(context: InContext, upload_id: Segment, request: Request) -> JsonAnswer:
    """Add a part: multipart `data`. Parts may be uploaded concurrently, in any order."""
    operations = context.operations
    operations.uploads.precheck_part(context.caller)  # before the body is read
    form = FileForm(request, file="data", bytes_max=PART_BYTES_MAX)
    await form.begin()
    part = await context.services.part_intake.take(
        context.caller.organization_id,
        form.pieces(),
        lambda reader: operations.uploads.add_part(context.caller, upload_id, reader),
        check=lambda: keys.check_now(operations.database, context.caller, Action.WRITE_FILES),
    )
    return JsonAnswer(views.part_object(part, upload_id))


@routes.post("/{upload_id}/complete")
async def complete_upload(
    context: InContext,
    upload_id: Segment,
    request: Request,
    retry_count: RetryCount = 0,
) -> JsonAnswer:
    """Create the file from the parts, in the order of `part_ids`."""
    context.operations.uploads.precheck(context.caller)  # before the body is read
    wanted = await read_as(request, _Complete)
    upload, file = await run_in_threadpool(
        context.operations.uploads.complete,
        context.caller,
        upload_id,
        wanted.part_ids,
        md5=wanted.md5,
        size=wanted.bytes,
        origin=Origin.checked(wanted.derived_from, wanted.source),
        is_retry=retry_count > 0,
    )
    return JsonAnswer(views.upload_object(upload, file))


@routes.post("/{upload_id}/cancel")
def cancel_upload(context: InContext, upload_id: Segment) -> JsonAnswer:
    """Cancel an upload and erase its parts."""
    upload = context.operations.uploads.cancel(context.caller, upload_id)
    return JsonAnswer(views.upload_object(upload, None))

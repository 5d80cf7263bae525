"""`/v1/uploads`: a large file in parts, as OpenAI defines them."""

from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import views
from tunewarden.api.bodies import read_body
from tunewarden.api.files import retry_count
from tunewarden.api.forms import FileForm
from tunewarden.api.intake import Intake
from tunewarden.api.operations import Operations
from tunewarden.api.segments import Calling, Segment
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, authorize
from tunewarden.registry.file_rules import Description
from tunewarden.registry.upload_rows import PART_BYTES_MAX

BODY_BYTES_MAX = 1024 * 1024

T = TypeVar("T", bound=msgspec.Struct)


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


def router(operations: Operations) -> APIRouter:
    """Return the routes of uploads."""
    routes = APIRouter(prefix="/v1/uploads")
    intake = Intake()
    uploads = operations.uploads

    @routes.post("")
    async def post_upload(caller: Calling, request: Request) -> JSONResponse:
        """Begin an upload."""
        authorize(caller, Action.WRITE_FILES)
        wanted = await _read(request, _Create)
        expires = wanted.expires_after
        described = Description.checked(
            filename=wanted.filename,
            purpose=wanted.purpose,
            anchor=expires.anchor if expires else None,
            seconds=expires.seconds if expires else None,
        )
        upload = await run_in_threadpool(
            uploads.create, caller, described, mime_type=wanted.mime_type, size=wanted.bytes
        )
        return JSONResponse(views.upload_object(upload, None))

    @routes.post("/{upload_id}/parts")
    async def post_part(caller: Calling, upload_id: Segment, request: Request) -> JSONResponse:
        """Add a part: multipart `data`. Parts may come at the same time, in any order."""
        authorize(caller, Action.WRITE_FILES)
        form = FileForm(request, file="data", bytes_max=PART_BYTES_MAX)
        await form.begin()
        part = await intake.take(
            form.pieces(), lambda reader: uploads.add_part(caller, upload_id, reader)
        )
        return JSONResponse(views.part_object(part, upload_id))

    @routes.post("/{upload_id}/complete")
    async def post_complete(
        caller: Calling,
        upload_id: Segment,
        request: Request,
        x_stainless_retry_count: Annotated[str, Header()] = "0",
    ) -> JSONResponse:
        """Make a file of the parts, in the order of `part_ids`."""
        authorize(caller, Action.WRITE_FILES)
        wanted = await _read(request, _Complete)
        upload, file = await run_in_threadpool(
            uploads.complete,
            caller,
            upload_id,
            wanted.part_ids,
            md5=wanted.md5,
            is_retry=retry_count(x_stainless_retry_count) > 0,
        )
        return JSONResponse(views.upload_object(upload, file))

    @routes.post("/{upload_id}/cancel")
    def post_cancel(caller: Calling, upload_id: Segment) -> JSONResponse:
        """Cancel an upload, and erase what has come of it."""
        return JSONResponse(views.upload_object(uploads.cancel(caller, upload_id), None))

    return routes


async def _read(request: Request, kind: type[T]) -> T:
    """Return a JSON body as what it must be. Raises Error(INVALID), Error(TOO_LARGE)."""
    body = await read_body(request.receive, BODY_BYTES_MAX)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Error(Kind.INVALID, f"{error}.", param=_param(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Error(Kind.INVALID, "The body must be a JSON object.") from error


def _param(message: str) -> str | None:
    """Return the field that msgspec names at the end of a message, such as "- at `$.bytes`"."""
    found = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else ""
    return found or None

"""`/v1/files`: create, list, retrieve, content and delete, as OpenAI defines them."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import views
from tunewarden.api.downloads import Downloads
from tunewarden.api.forms import FileForm
from tunewarden.api.intake import Intake
from tunewarden.api.operations import Operations
from tunewarden.api.segments import Calling, Segment
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import file_rules, files
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.file_rules import Description
from tunewarden.registry.files import File

LIST_MAX = 10_000
UNNAMED = "upload"  # what the SDK calls bytes without a name


def router(operations: Operations) -> APIRouter:
    """Return the routes of files."""
    routes = APIRouter(prefix="/v1/files")
    intake = Intake()
    downloads = Downloads(operations.admissions, operations.files.content)

    @routes.post("")
    async def post_file(caller: Calling, request: Request) -> JSONResponse:
        """Create a file: multipart `file`, `purpose`, `expires_after[anchor]`, `expires_after[seconds]`."""
        authorize(caller, Action.WRITE_FILES)
        try:
            file = await _create(operations, intake, caller, request)
        except Error as refused:
            await run_in_threadpool(operations.files.refuse, caller, refused)
            raise
        return JSONResponse(views.file_object(file))

    @routes.get("")
    def get_files(
        caller: Calling,
        purpose: str | None = None,
        limit: Annotated[int, Query(ge=0, le=LIST_MAX)] = LIST_MAX,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> StreamingResponse:
        """List the project's files, newest first."""
        authorize(caller, Action.READ_FILES)
        pages = files.pages(
            operations.database,
            caller,
            purpose=purpose,
            after=after,
            is_ascending=order == "asc",
            size=min(limit + 1, 1000),
        )
        listing = _listing(chain.from_iterable(pages), limit)
        return StreamingResponse(listing, media_type="application/json")

    @routes.get("/{file_id}")
    def get_file(caller: Calling, file_id: Segment) -> JSONResponse:
        """Return a file's description."""
        return JSONResponse(views.file_object(_find(operations, caller, file_id)))

    @routes.get("/{file_id}/content")
    def get_content(caller: Calling, file_id: Segment) -> Response:
        """Return a file's bytes."""
        return downloads.answer(_find(operations, caller, file_id))

    @routes.delete("/{file_id}")
    def delete_file(
        caller: Calling,
        file_id: Segment,
        idempotency_key: Annotated[str | None, Header()] = None,
        x_stainless_retry_count: Annotated[str, Header()] = "0",
    ) -> JSONResponse:
        """Delete a file; answer when it is gone (D8)."""
        attempt = Attempt(
            retry_count=retry_count(x_stainless_retry_count), idempotency_key=idempotency_key
        )
        deletion = operations.executor.delete(caller, ArtifactKind.FILE, file_id, attempt)
        return JSONResponse(
            {"id": deletion.artifact_id, "object": "file", "deleted": True},
            headers={"tunewarden-deletion": deletion.id},
        )

    return routes


def retry_count(header: str) -> int:
    """Return how many times the SDK has sent this request before."""
    return int(header) if re.fullmatch("[0-9]{1,4}", header) else 0


async def _create(operations: Operations, intake: Intake, caller: Caller, request: Request) -> File:
    form = FileForm(request, file="file", bytes_max=operations.config.file_bytes_max)
    await form.begin()
    if "purpose" in form.form.fields:
        # The SDK sends it first: then a file that would be refused need not come at all.
        purpose = form.form.field("purpose")
        file_rules.check_purpose(purpose)
        file_rules.check_name(form.filename or UNNAMED, purpose)
    return await intake.take(
        form.pieces(),
        lambda reader: operations.files.create(caller, reader, lambda: _described(form)),
    )


def _described(form: FileForm) -> Description:
    fields = form.form
    anchor, seconds = "expires_after[anchor]", "expires_after[seconds]"
    return Description.checked(
        filename=form.filename or UNNAMED,
        purpose=fields.field("purpose"),
        anchor=fields.field(anchor) if anchor in fields.fields else None,
        seconds=fields.field(seconds) if seconds in fields.fields else None,
    )


def _find(operations: Operations, caller: Caller, file_id: str) -> File:
    authorize(caller, Action.READ_FILES)
    file = files.find(operations.database, caller, file_id)
    if file is None:
        raise files.missing(file_id)
    return file


def _listing(found: Iterator[File], limit: int) -> Iterator[bytes]:
    """Yield the list object in pieces: flat memory, however many files there are."""
    yield b'{"object":"list","data":['
    separator = b""
    first_id = last_id = None
    has_more = False
    buffer = bytearray()
    for count, file in enumerate(found):
        if count == limit:
            has_more = True
            break
        first_id, last_id = first_id or file.id, file.id
        buffer += separator + _json(views.file_object(file))
        separator = b","
        if len(buffer) > 64 * 1024:
            yield bytes(buffer)
            buffer.clear()
    rest = {"first_id": first_id, "last_id": last_id, "has_more": has_more}
    yield bytes(buffer) + b"]," + _json(rest)[1:]


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

"""`/v1/files`: create, list, retrieve, content and delete, as OpenAI defines them."""

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import deletion_requests, listing, schemas, searching, views
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.forms import FileForm, Form
from tunewarden.api.parameters import Attempting, Context, InContext, Segment, read_as
from tunewarden.api.search_schemas import FileSearch
from tunewarden.api.searching import Searching
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action
from tunewarden.registry import file_rules, file_searches
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.file_rows import File
from tunewarden.registry.file_rules import Description

LIST_MAX = 10_000
EXPIRY = "expires_after"
BRACKETS = (f"{EXPIRY}[anchor]", f"{EXPIRY}[seconds]")
FIELDS = ("purpose", EXPIRY, *BRACKETS)
UNNAMED = "upload"  # what the SDK calls bytes without a name


routes = APIRouter(prefix="/v1/files")


@routes.post("")
async def create_file(context: InContext, request: Request) -> JsonAnswer:
    """Create a file: multipart `file`, `purpose`, `expires_after` as JSON, or its two parts in brackets."""
    context.operations.files.precheck(context.caller)  # before the body is read
    try:
        file = await _create(context, request)
    except Error as refused:
        await run_in_threadpool(context.operations.files.refuse, context.caller, refused)
        raise
    return JsonAnswer(views.file_object(file))


@routes.get("")
def list_files(
    context: InContext,
    *,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=0, le=LIST_MAX)] = LIST_MAX,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> StreamingResponse:
    """List the project's files, newest first."""
    found = context.operations.files.everything(
        context.caller,
        purpose=purpose,
        after=after,
        is_ascending=order == "asc",
        limit=limit + 1,
    )
    return listing.stream(map(views.file_object, found), limit)


@routes.post("/search")
async def search_files(context: InContext, request: Request) -> Response:
    """Look for texts in the files of all projects, as lines of JSON: matches, progress, and a summary at the end."""
    wanted = await read_as(request, FileSearch)
    search = await run_in_threadpool(
        file_searches.begin,
        context.operations.database,
        context.caller,
        wanted.texts,
        after=wanted.after,
    )
    return searching.Answer(Searching(context.services.searches, context.caller, search))


@routes.get("/{file_id}")
def retrieve_file(context: InContext, file_id: Segment) -> JsonAnswer:
    """Return a file's description, with what it was made from."""
    file = _find(context, file_id)
    return JsonAnswer(views.file_object(file, context.operations.files.origin_of(file)))


@routes.get("/{file_id}/content")
def download_file(context: InContext, file_id: Segment) -> Response:
    """Return a file's bytes."""
    return context.services.downloads.of_file(context.caller, _find(context, file_id))


@routes.delete("/{file_id}")
async def delete_file(
    context: InContext,
    file_id: Segment,
    attempt: Attempting,
    *,
    cascade: Literal["models"] | None = None,
    dry_run: bool = False,
) -> JsonAnswer:
    """Delete a file; answer when it is gone (D8). `dry_run` says what would be deleted, `force` overrides blockers.

    With `cascade=models` everything that learned from it is deleted too, as a case: then all of it is gone.
    """
    attempt = replace(attempt, with_models=cascade is not None)
    return await deletion_requests.answer(
        context, ArtifactKind.FILE, file_id, attempt, is_dry_run=dry_run
    )


async def _create(context: Context, request: Request) -> File:
    operations = context.operations
    form = FileForm(request, file="file", fields=FIELDS, bytes_max=operations.config.file_bytes_max)
    await form.begin()
    if "purpose" in form.form.fields:
        # The SDK sends it before the file, so an invalid purpose is refused before the upload.
        purpose = form.form.field("purpose")
        file_rules.check_purpose(purpose)
        file_rules.check_name(form.filename or UNNAMED, purpose)
    return await context.services.file_intake.take(
        context.caller.organization_id,
        form.pieces(),
        lambda reader: operations.files.create(context.caller, reader, lambda: _described(form)),
        check=lambda: keys.check_now(operations.database, context.caller, Action.WRITE_FILES),
    )


def _described(form: FileForm) -> Description:
    fields = form.form
    anchor, seconds = _expiry(fields)
    return Description.checked(
        filename=form.filename or UNNAMED,
        purpose=fields.field("purpose"),
        anchor=anchor,
        seconds=seconds,
    )


def _expiry(form: Form) -> tuple[str | None, str | int | None]:
    """Return anchor and seconds: of one JSON object, as OpenAPI has it in a form, or of the SDKs' two fields."""
    if EXPIRY not in form.fields:
        anchor, seconds = (form.field(name) if name in form.fields else None for name in BRACKETS)
        return anchor, seconds
    if not form.fields.keys().isdisjoint(BRACKETS):
        raise Error(Kind.INVALID, f"Field '{EXPIRY}' is given in two forms.", param=EXPIRY)
    try:
        given = msgspec.json.decode(form.fields[EXPIRY], type=schemas.ExpiresAfter | None)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Error(Kind.INVALID, f"Field '{EXPIRY}' is invalid: {error}.", param=EXPIRY) from error
    return (None, None) if given is None else (given.anchor, given.seconds)


def _find(context: Context, file_id: str) -> File:
    return context.operations.files.retrieve(context.caller, file_id)

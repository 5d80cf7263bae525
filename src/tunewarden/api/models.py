"""`/v1/models`: list, retrieve, delete as OpenAI defines them, and import, our extension."""

from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import deletion_requests, listing, schemas, views
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.forms import announced_bytes, check_announced, read_form
from tunewarden.api.parameters import Attempting, Context, InContext, Segment, read_as
from tunewarden.artifacts.base_facts import BaseFacts, base_facts
from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.registry import bases, catalog, metadata, retention_notices
from tunewarden.registry.alias_rows import Alias
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.bases import Base, BaseKind, OtherName
from tunewarden.registry.catalog import Found
from tunewarden.registry.model_changes import Changes
from tunewarden.registry.models import Model

ADAPTER_FILES = ("adapter_config", "adapter_model")
ADAPTER_FIELDS = ("base", "suffix", "metadata")

# By the name of a base.
Known = dict[str, BaseFacts | None]

PREFIX = "/v1/models/"

routes = APIRouter(prefix="/v1/models")


@routes.get("")
def list_models(
    context: InContext,
    limit: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    after: str | None = None,
    *,
    aliases: bool = False,
) -> StreamingResponse:
    """Stream all bases and the project's models: the stock SDK never asks for a second page. Aliases if asked for."""
    if aliases and (limit is not None or after is not None):
        raise Error(
            Kind.INVALID,
            "A list with aliases has no pages: omit 'limit' and 'after'.",
            param="aliases",
        )
    size = None if limit is None else limit + 1
    found = catalog.everything(
        context.operations.database, context.caller, after=after, limit=size, with_aliases=aliases
    )
    known = {base.name: _facts(base) for base in bases.list_all(context.operations.database)}
    return listing.stream((_shown(context, one, known) for one in found), limit, has_ids=False)


@routes.get("/{model_id}")
def retrieve_model(context: InContext, model_id: Segment) -> JsonAnswer:
    """Return a base or a model of the project."""
    found = catalog.retrieve(context.operations.database, context.caller, model_id)
    return JsonAnswer(_one_shown(context, found))


@routes.get("/{model_id}/engines")
def list_model_engines(context: InContext, model_id: Segment) -> JsonAnswer:
    """Ask each engine of a fine-tuned model's base whether it has the model."""
    found = catalog.retrieve(context.operations.database, context.caller, model_id)
    if not isinstance(found, Model):
        raise Error(
            Kind.INVALID,
            f"'{found.name}' is a base model or an alias. Only fine-tuned models are loaded on use.",
            param="model",
        )
    return JsonAnswer(views.engines_object(context.operations.adapter_states.of(found)))


@routes.get("/{model_id}/content")
def export_model(context: InContext, model_id: Segment) -> Response:
    """Return a model's files in plaintext, as a zip. Recorded in the log first: every receipt of its deletion says so."""
    model = context.operations.exports.find(context.caller, model_id)
    return context.services.downloads.of_model(context.caller, model)


@routes.get("/{model_id}/usage")
def show_model_usage(context: InContext, model_id: Segment) -> JsonAnswer:
    """Return when the organization used a model last, and how often lately."""
    of = context.operations
    found = catalog.usage_of(of.database, context.caller, model_id, of.executor.is_served)
    return JsonAnswer(views.usage_object(model_id, found))


@routes.delete("/{model_id}")
async def delete_model(
    context: InContext, model_id: Segment, attempt: Attempting, *, dry_run: bool = False
) -> JsonAnswer:
    """Delete a model; answer when it is gone (D8). `dry_run` says what would be deleted, `force` overrides blockers."""
    return await deletion_requests.answer(
        context, ArtifactKind.MODEL, model_id, attempt, is_dry_run=dry_run
    )


@routes.post("/{model_id}")
async def change_model(context: InContext, model_id: Segment, request: Request) -> JsonAnswer:
    """Archive, protect or describe a fine-tuned model, or undo that."""
    wanted = await read_as(request, schemas.ModelChanges)
    changes = Changes(wanted.archived, wanted.protected, metadata.checked(wanted.metadata))
    model = await run_in_threadpool(
        context.operations.model_changes.change, context.caller, model_id, changes
    )
    return JsonAnswer(await run_in_threadpool(_one_shown, context, model))


@routes.post("")
async def import_model(context: InContext, request: Request) -> JsonAnswer:
    """Import a PEFT LoRA: multipart fields `base`, `suffix`, `metadata` (JSON), `adapter_config`, `adapter_model`."""
    context.operations.imports.precheck(context.caller)  # before the body is read
    model = await _bring_in(context, request)
    return JsonAnswer(await run_in_threadpool(_one_shown, context, model))


async def _bring_in(context: Context, request: Request) -> Model:
    operations = context.operations
    most = operations.config.adapter_bytes_max
    check_announced(request, ADAPTER_FILES[-1], most * len(ADAPTER_FILES))
    announced = min(announced_bytes(request), most)
    with context.services.import_memory.held(context.caller.organization_id, announced) as held:
        form = await read_form(
            request,
            files=ADAPTER_FILES,
            fields=ADAPTER_FIELDS,
            file_bytes_max=most,
            held=held,
        )
        try:
            base = form.field("base")
            suffix = form.field("suffix", default="")
            described = metadata.parsed(form.field("metadata", default=""))
            config, weights = (form.file(name) for name in ADAPTER_FILES)
            return await run_in_threadpool(
                operations.imports.bring_in,
                context.caller,
                base=base,
                suffix=suffix,
                config=config,
                weights=weights,
                described=described,
            )
        finally:
            form.close()


def _one_shown(context: Context, found: Found) -> schemas.Model:
    """Return what a list shows of one, and a fine-tuned model's metadata, which is decrypted for it."""
    shown = _shown(context, found, _known_of(context, found))
    if isinstance(found, Model):
        shown.metadata = context.operations.model_changes.metadata_of(found)
        notice = retention_notices.next_of(context.operations.database, found.n)
        if notice is not None:
            shown.deletion_due_at = notice.due_at // 1_000_000
    return shown


def with_one_segment(database: Database, path: str) -> str:
    """Return a path with the slashes of a base's other name encoded, which a client may send as they are."""
    if not path.startswith(PREFIX):
        return path
    named = path.removeprefix(PREFIX)
    for name in (named, named.rpartition("/")[0]):  # alone, or with what is asked of it
        if "/" in name and bases.find(database, unquote(name)):
            return PREFIX + quote(unquote(name), safe="") + named[len(name) :]
    return path


def _facts(base: Base) -> BaseFacts | None:
    """Return what is known of a base: of a remote one, nothing."""
    return base_facts(base.location) if base.kind is BaseKind.LOCAL else None


def _known_of(context: Context, found: Found) -> Known:
    base = found if isinstance(found, Base) else None
    if isinstance(found, OtherName):
        base = found.base
    if isinstance(found, Model):
        base = bases.find(context.operations.database, found.base)
    return {} if base is None else {base.name: _facts(base)}


def _shown(context: Context, found: Found, known: Known) -> schemas.Model:
    if isinstance(found, Base):
        return views.base_object(found, known.get(found.name))
    if isinstance(found, OtherName):
        return views.other_name_object(found, known.get(found.base.name))
    if isinstance(found, Alias):
        return views.aliased_object(found, context.caller.organization_name)
    return views.model_object(found, context.caller.organization_name, known.get(found.base))

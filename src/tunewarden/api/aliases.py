"""`/v1/aliases`: stable names for models, used as `model`. An Owner creates, switches, rolls back and deletes them."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import alias_schemas, listing, schemas, views
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InContext, Segment, read_as
from tunewarden.errors import Error, Kind

routes = APIRouter(prefix="/v1/aliases")


@routes.post("")
async def create_alias(context: InContext, request: Request) -> JsonAnswer:
    """Create an alias of one model, or of several with weights."""
    wanted = await read_as(request, alias_schemas.NewAlias)
    weights = _weights(wanted.model, wanted.targets)
    made = await run_in_threadpool(
        context.operations.aliases.set, context.caller, wanted.name, weights, is_new=True
    )
    return JsonAnswer(views.alias_object(made))


@routes.get("")
def list_aliases(
    context: InContext,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: str | None = None,
) -> Response:
    """List the organization's aliases by name."""
    found = context.operations.aliases.page(context.caller, after=after, limit=limit + 1)
    return listing.page(map(views.alias_object, found), limit)


@routes.get("/{name}")
def retrieve_alias(context: InContext, name: Segment) -> JsonAnswer:
    """Return an alias and its history, newest first."""
    found, history = context.operations.aliases.find(context.caller, name)
    return JsonAnswer(views.alias_object(found, history))


@routes.post("/{name}")
async def change_alias(context: InContext, name: Segment, request: Request) -> JsonAnswer:
    """Switch an alias to other models, or back: every request after the answer is served by these."""
    wanted = await read_as(request, alias_schemas.AliasChange)
    aliases = context.operations.aliases
    if wanted.rollback or wanted.version is not None:
        if wanted.model is not None or wanted.targets is not None:
            raise Error(
                Kind.INVALID, "Send either a rollback or what to point to.", param="rollback"
            )
        changed = await run_in_threadpool(aliases.roll_back, context.caller, name, wanted.version)
    else:
        weights = _weights(wanted.model, wanted.targets)
        changed = await run_in_threadpool(aliases.set, context.caller, name, weights, is_new=False)
    return JsonAnswer(views.alias_object(changed))


@routes.delete("/{name}")
def delete_alias(context: InContext, name: Segment) -> JsonAnswer:
    """Delete an alias; the models that it points to stay."""
    context.operations.aliases.end(context.caller, name)
    return JsonAnswer(schemas.Deleted(name, "alias.deleted", deleted=True))


def _weights(
    model: str | None, targets: Sequence[alias_schemas.NewAliasTarget] | None
) -> dict[str, int]:
    """Return the weight of each model. Raises Error(INVALID)."""
    if (model is None) == (targets is None):
        raise Error(Kind.INVALID, "Name either one 'model' or several 'targets'.", param="model")
    if model is not None:
        return {model: 1}
    weights = {one.model: one.weight for one in targets or ()}
    if len(weights) != len(targets or ()):
        raise Error(Kind.INVALID, "'targets' names a model twice.", param="targets")
    return weights

"""`/v1/models/{id}/lineage`: what a model learned from, and what learned from it."""

from fastapi import APIRouter
from msgspec import UNSET

from tunewarden.api import deletion_schemas as schemas
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InContext, Segment
from tunewarden.deletion.cases import model_lineage
from tunewarden.deletion.cases.model_lineage import Direction, Relative

routes = APIRouter(prefix="/v1/models")


@routes.get("/{model_id}/lineage")
def show_model_lineage(context: InContext, model_id: Segment) -> JsonAnswer:
    """Return the files, jobs and models that a model learned from, and those that learned from it."""
    found = model_lineage.of(context.operations.database, context.caller, model_id)
    shown = schemas.ModelLineage(
        "model.lineage", found.model.id, _direction(found.up), _direction(found.down)
    )
    return JsonAnswer(shown)


def _direction(found: Direction) -> schemas.LineageDirection:
    return schemas.LineageDirection(
        [_relative(one) for one in found.relatives], found.hidden, found.is_whole
    )


def _relative(one: Relative) -> schemas.Relative:
    if one.is_gone:
        return schemas.Relative(one.id, one.state)
    return schemas.Relative(
        one.id, one.state, one.kind, UNSET if one.via is None else one.via, one.is_declared
    )

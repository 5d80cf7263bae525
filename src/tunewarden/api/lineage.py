"""`/v1/models/{id}/lineage` and `/v1/files/{id}/lineage`: what one learned from, and what learned from it."""

from fastapi import APIRouter
from msgspec import UNSET

from tunewarden.api import deletion_schemas as schemas
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InContext, Segment
from tunewarden.deletion.cases import artifact_lineage
from tunewarden.deletion.cases.artifact_lineage import Direction, Relative

routes = APIRouter(prefix="/v1")


@routes.get("/models/{model_id}/lineage")
def show_model_lineage(context: InContext, model_id: Segment) -> JsonAnswer:
    """Return the files, jobs and models that a model learned from, and those that learned from it."""
    found = artifact_lineage.of_model(context.operations.database, context.caller, model_id)
    shown = schemas.ModelLineage(
        "model.lineage", found.artifact.id, _direction(found.up), _direction(found.down)
    )
    return JsonAnswer(shown)


@routes.get("/files/{file_id}/lineage")
def show_file_lineage(context: InContext, file_id: Segment) -> JsonAnswer:
    """Return the files and jobs that a file was made from, and the jobs, models and files that learned from it."""
    found = artifact_lineage.of_file(context.operations.database, context.caller, file_id)
    shown = schemas.FileLineage(
        "file.lineage", found.artifact.id, _direction(found.up), _direction(found.down)
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

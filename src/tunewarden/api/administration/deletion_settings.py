"""`/v1/organization/deletion_settings`: what the organization asks of deletions. Our extension."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from tunewarden.api.administration import schemas
from tunewarden.api.administration.bodies import InBody
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration
from tunewarden.registry import deletion_settings

routes = APIRouter(prefix="/v1/organization/deletion_settings")


@routes.get("")
def retrieve_deletion_settings(context: InAdministration) -> JsonAnswer:
    """Return for how many minutes after its last use a model is in use; null: use blocks no deletion."""
    found = deletion_settings.find(context.operations.database, context.administrator)
    return JsonAnswer(schemas.DeletionSettings("organization.deletion_settings", found))


@routes.post("")
async def update_deletion_settings(context: InAdministration, body: InBody) -> JsonAnswer:
    """Set for how many minutes after its last use a model is in use; without `in_use_minutes`, use blocks nothing."""
    body.check("in_use_minutes")
    found = await run_in_threadpool(
        deletion_settings.change,
        context.operations.database,
        context.administrator,
        body.whole_number("in_use_minutes"),
    )
    return JsonAnswer(schemas.DeletionSettings("organization.deletion_settings", found))

"""`/v1/organization/admin_api_keys`: the keys that administer."""

from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api.administration import schemas
from tunewarden.api.administration.bodies import InBody
from tunewarden.api.administration.pages import InPage, page
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration, Segment
from tunewarden.api.schemas import Deleted
from tunewarden.identity import admin_key_commands, key_format
from tunewarden.identity.admin_keys import AdminKey
from tunewarden.identity.key_rows import seconds_of
from tunewarden.registry import usage

routes = APIRouter(prefix="/v1/organization/admin_api_keys")


@routes.get("")
def list_admin_keys(
    context: InAdministration,
    asked: InPage,
    order: Literal["asc", "desc"] = "asc",
) -> Response:
    """List the admin keys of the organization, oldest first by default."""

    def with_last_use(found: list[AdminKey]) -> Iterator[schemas.AdminKey]:
        with context.operations.database.read() as tx:
            used = usage.last_uses_of_keys(tx, [one.id for one in found])
        return (shown(one, used.get(one.id)) for one in found)

    is_ascending = order == "asc"
    return page(
        context, asked, admin_key_commands.page, shown=with_last_use, is_ascending=is_ascending
    )


@routes.post("")
async def create_admin_key(context: InAdministration, body: InBody) -> JsonAnswer:
    """Create an admin key of the user whose admin key asks, or of another Owner."""
    body.check("name", "user_id", "expires_in_seconds")
    made, text = await run_in_threadpool(
        admin_key_commands.create,
        context.operations.database,
        context.administrator,
        name=body.required_text("name"),
        user_id=body.text("user_id"),
        expires_in_seconds=body.whole_number("expires_in_seconds"),
    )
    object_ = shown(made, None)
    object_.value = text
    return JsonAnswer(object_)


@routes.get("/{key_id}")
def retrieve_admin_key(context: InAdministration, key_id: Segment) -> JsonAnswer:
    """Return one admin key."""
    database = context.operations.database
    found = admin_key_commands.retrieve(database, context.administrator, key_id)
    with database.read() as tx:
        used = usage.last_uses_of_keys(tx, [found.id])
    return JsonAnswer(shown(found, used.get(found.id)))


@routes.delete("/{key_id}")
def delete_admin_key(context: InAdministration, key_id: Segment) -> JsonAnswer:
    """Revoke an admin key for good."""
    admin_key_commands.revoke(context.operations.database, context.administrator, key_id)
    return JsonAnswer(Deleted(key_id, "organization.admin_api_key.deleted", deleted=True))


def shown(key: AdminKey, last_used_at: int | None) -> schemas.AdminKey:
    """Return an admin key as OpenAI's AdminAPIKey; `last_used_at` is in microseconds."""
    owner = schemas.OwnerOfAdminKey(
        key.user_id,
        "organization.user",
        "user",
        key.user_name,
        key.user_role,
        key.user_created_at // 1_000_000,
    )
    return schemas.AdminKey(
        id=key.id,
        object="organization.admin_api_key",
        name=key.name,
        redacted_value=key_format.redacted(key.id),
        created_at=key.created_at // 1_000_000,
        expires_at=seconds_of(key.expires_at),
        last_used_at=seconds_of(last_used_at),
        owner=owner,
    )

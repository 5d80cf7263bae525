"""`/v1/organization/projects/{project_id}/api_keys`: the API keys of a project.

OpenAI creates those of people in its console only; here an administrator may.
"""

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
from tunewarden.identity import key_format, project_keys
from tunewarden.identity.key_rows import seconds_of
from tunewarden.identity.project_keys import Access, KeyOwner, ProjectKey
from tunewarden.registry import rate_limits, usage

routes = APIRouter(prefix="/v1/organization/projects/{project_id}/api_keys")


@routes.get("")
def list_project_keys(
    context: InAdministration,
    project_id: Segment,
    *,
    asked: InPage,
    owner_project_access: Literal["active", "inactive", "any"] = "any",
) -> Response:
    """List the API keys of a project, newest first."""

    def with_last_use(found: list[ProjectKey]) -> Iterator[schemas.ProjectKey]:
        with context.operations.database.read() as tx:
            used = usage.last_uses_of_keys(tx, [one.key.id for one in found])
        return (shown(one, used.get(one.key.id)) for one in found)

    access = Access(owner_project_access)
    return page(context, asked, project_keys.page, project_id, shown=with_last_use, access=access)


@routes.post("")
async def create_project_key(
    context: InAdministration, project_id: Segment, body: InBody
) -> JsonAnswer:
    """Create an API key of a person in the project."""
    body.check("user_id", "name", "scopes", "expires_in_seconds")
    made, text = await run_in_threadpool(
        project_keys.create,
        context.operations.database,
        context.administrator,
        project_id,
        user_id=body.required_text("user_id"),
        name=body.required_text("name"),
        scopes=body.texts("scopes") or (),
        expires_in_seconds=body.whole_number("expires_in_seconds"),
    )
    object_ = shown(made, None)
    object_.value = text
    return JsonAnswer(object_)


@routes.get("/{api_key_id}")
def retrieve_project_key(
    context: InAdministration, project_id: Segment, api_key_id: Segment
) -> JsonAnswer:
    """Return one API key."""
    database, administrator = context.operations.database, context.administrator
    return _answer(context, project_keys.retrieve(database, administrator, project_id, api_key_id))


@routes.post("/{api_key_id}")
async def update_project_key(
    context: InAdministration, project_id: Segment, api_key_id: Segment, body: InBody
) -> JsonAnswer:
    """Give an API key other scopes or another end."""
    body.check("scopes", "expires_in_seconds")
    changed = await run_in_threadpool(
        project_keys.update,
        context.operations.database,
        context.administrator,
        project_id,
        api_key_id,
        scopes=body.texts("scopes"),
        expires_in_seconds=body.whole_number("expires_in_seconds"),
    )
    return _answer(context, changed)


@routes.post("/{api_key_id}/rotate")
async def rotate_project_key(
    context: InAdministration, project_id: Segment, api_key_id: Segment, body: InBody
) -> JsonAnswer:
    """Create an API key like another one, with its rate limit; that one ends after `overlap_seconds`."""
    body.check("overlap_seconds", "expires_in_seconds")
    made, text, old = await run_in_threadpool(
        project_keys.rotate,
        context.operations.database,
        context.administrator,
        project_id,
        api_key_id,
        overlap_seconds=body.whole_number("overlap_seconds"),
        expires_in_seconds=body.whole_number("expires_in_seconds"),
        share_limit=rate_limits.share_of_key,
    )
    object_ = shown(made, None)
    object_.value = text
    object_.rotated = schemas.OldKey(old.id, seconds_of(old.expires_at))
    return JsonAnswer(object_)


@routes.delete("/{api_key_id}")
def delete_project_key(
    context: InAdministration, project_id: Segment, api_key_id: Segment
) -> JsonAnswer:
    """Revoke an API key for good."""
    database, administrator = context.operations.database, context.administrator
    project_keys.revoke(database, administrator, project_id, api_key_id)
    return JsonAnswer(Deleted(api_key_id, "organization.project.api_key.deleted", deleted=True))


def _answer(context: InAdministration, found: ProjectKey) -> JsonAnswer:
    with context.operations.database.read() as tx:
        used = usage.last_uses_of_keys(tx, [found.key.id])
    return JsonAnswer(shown(found, used.get(found.key.id)))


def shown(found: ProjectKey, last_used_at: int | None) -> schemas.ProjectKey:
    """Return a key as OpenAI's ProjectAPIKey; `last_used_at` is in microseconds."""
    return schemas.ProjectKey(
        id=found.key.id,
        object="organization.project.api_key",
        name=found.key.name,
        redacted_value=key_format.redacted(found.key.id),
        created_at=found.key.created_at // 1_000_000,
        last_used_at=seconds_of(last_used_at),
        expires_at=seconds_of(found.key.expires_at),
        owner=_owner(found.owner),
        owner_project_access="active" if found.owner.has_access else "inactive",
        scopes=list(found.key.scopes),
    )


def _owner(owner: KeyOwner) -> schemas.OwnerOfKey:
    created_at = owner.created_at // 1_000_000
    if owner.is_service_account:
        account = schemas.AccountOfKey(owner.id, owner.name, owner.project_role, created_at)
        return schemas.OwnerOfKey("service_account", service_account=account)
    # OpenAI's schema wants an address, which users that the operator made have not.
    person = schemas.PersonOfKey(
        owner.id, owner.name, owner.email or "", owner.project_role, created_at
    )
    return schemas.OwnerOfKey("user", user=person)

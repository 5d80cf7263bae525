"""`/v1/organization/projects/{project_id}/service_accounts`: users of a project who are no people."""

from functools import partial

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api.administration import schemas
from tunewarden.api.administration.bodies import InBody
from tunewarden.api.administration.pages import InPage, page
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration, Segment
from tunewarden.api.schemas import Deleted
from tunewarden.identity import service_accounts
from tunewarden.identity.key_rows import seconds_of
from tunewarden.identity.policy import ServiceAccountRole
from tunewarden.identity.service_accounts import NewKey, ServiceAccount

routes = APIRouter(prefix="/v1/organization/projects/{project_id}/service_accounts")


@routes.get("")
def list_service_accounts(
    context: InAdministration, project_id: Segment, asked: InPage
) -> Response:
    """List the service accounts of a project, newest first."""
    return page(context, asked, service_accounts.page, project_id, shown=partial(map, shown))


@routes.post("")
async def create_service_account(
    context: InAdministration, project_id: Segment, body: InBody
) -> JsonAnswer:
    """Create a service account, with the role `member` and an API key unless it is to have neither."""
    body.check("name", "create_service_account_only", "expires_in_seconds")
    account, made = await run_in_threadpool(
        service_accounts.create,
        context.operations.database,
        context.administrator,
        project_id,
        name=body.required_text("name"),
        has_key=not body.flag("create_service_account_only"),
        expires_in_seconds=body.whole_number("expires_in_seconds"),
    )
    return JsonAnswer(
        schemas.CreatedServiceAccount(
            id=account.id,
            object="organization.project.service_account",
            name=account.name,
            role="none" if made is None else "member",
            created_at=account.created_at // 1_000_000,
            api_key=None if made is None else _with_value(made),
        )
    )


@routes.get("/{service_account_id}")
def retrieve_service_account(
    context: InAdministration, project_id: Segment, service_account_id: Segment
) -> JsonAnswer:
    """Return one service account."""
    database, administrator = context.operations.database, context.administrator
    found = service_accounts.retrieve(database, administrator, project_id, service_account_id)
    return JsonAnswer(shown(found))


@routes.post("/{service_account_id}")
async def update_service_account(
    context: InAdministration, project_id: Segment, service_account_id: Segment, body: InBody
) -> JsonAnswer:
    """Give a service account another name or role."""
    body.check("name", "role")
    changed = await run_in_threadpool(
        service_accounts.update,
        context.operations.database,
        context.administrator,
        project_id,
        service_account_id,
        name=body.text("name"),
        role=body.one_of("role", ServiceAccountRole),
    )
    return JsonAnswer(shown(changed))


@routes.delete("/{service_account_id}")
def delete_service_account(
    context: InAdministration, project_id: Segment, service_account_id: Segment
) -> JsonAnswer:
    """Delete a service account; its API keys are refused from then on."""
    database, administrator = context.operations.database, context.administrator
    service_accounts.remove(database, administrator, project_id, service_account_id)
    return JsonAnswer(
        Deleted(service_account_id, "organization.project.service_account.deleted", deleted=True)
    )


@routes.post("/{service_account_id}/api_keys")
async def create_service_account_key(
    context: InAdministration, project_id: Segment, service_account_id: Segment, body: InBody
) -> JsonAnswer:
    """Create another API key of a service account."""
    body.check("name", "scopes", "expires_in_seconds")
    made = await run_in_threadpool(
        service_accounts.create_key,
        context.operations.database,
        context.administrator,
        project_id,
        service_account_id,
        name=body.text("name"),
        scopes=body.texts("scopes") or (),
        expires_in_seconds=body.whole_number("expires_in_seconds"),
    )
    return JsonAnswer(_with_value(made))


def shown(account: ServiceAccount) -> schemas.ServiceAccount:
    """Return a service account as OpenAI's ProjectServiceAccount."""
    return schemas.ServiceAccount(
        id=account.id,
        object="organization.project.service_account",
        name=account.name,
        role=account.role.value,
        created_at=account.created_at // 1_000_000,
    )


def _with_value(made: NewKey) -> schemas.ServiceAccountKey:
    return schemas.ServiceAccountKey(
        id=made.key.id,
        object="organization.project.service_account.api_key",
        name=made.key.name,
        value=made.text,
        created_at=made.key.created_at // 1_000_000,
        expires_at=seconds_of(made.key.expires_at),
    )

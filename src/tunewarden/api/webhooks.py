"""`/v1/webhook_endpoints`: where events are sent, as the SDK's `client.webhooks` asks; enabling, and deliveries, are ours."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import listing, webhook_schemas
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InContext, Segment, read_as
from tunewarden.api.schemas import Deleted
from tunewarden.webhooks import signing
from tunewarden.webhooks.endpoints import Changes, Shown
from tunewarden.webhooks.event_types import WebhookEventType
from tunewarden.webhooks.outbox import Delivery, DeliveryState

routes = APIRouter(prefix="/v1")
MICROS = 1_000_000
ENDPOINTS = "/webhook_endpoints"
ENDPOINT = f"{ENDPOINTS}/{{webhook_endpoint_id}}"


@routes.get("/webhook_event_types")
def list_event_types(context: InContext) -> JsonAnswer:
    """List the types of events that endpoints can ask for."""
    context.operations.webhooks.check_may_read(context.caller)
    types = [one.value for one in WebhookEventType]
    return JsonAnswer(webhook_schemas.WebhookEventTypes("list", types))


@routes.post(ENDPOINTS)
async def create_endpoint(context: InContext, request: Request) -> JsonAnswer:
    """Create an endpoint: the answer has its secret, which is not shown again."""
    wanted = await read_as(request, webhook_schemas.NewWebhookEndpoint)
    given = wanted.name, wanted.url, wanted.event_types
    webhooks = context.operations.webhooks
    made = await context.services.webhook_threads.run(webhooks.create, context.caller, *given)
    return _with_secret(made)


@routes.get(ENDPOINTS)
def list_endpoints(
    context: InContext,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
) -> Response:
    """List the organization's endpoints, oldest first, without their secrets."""
    found = context.operations.webhooks.page(context.caller, after=after, limit=limit + 1)
    return listing.page(map(_endpoint, found), limit)


@routes.get(ENDPOINT)
def retrieve_endpoint(context: InContext, webhook_endpoint_id: Segment) -> JsonAnswer:
    """Return an endpoint, without its secret."""
    found = context.operations.webhooks.find(context.caller, webhook_endpoint_id)
    return JsonAnswer(_endpoint(found))


@routes.post(ENDPOINT)
async def change_endpoint(
    context: InContext, webhook_endpoint_id: Segment, request: Request
) -> JsonAnswer:
    """Change an endpoint, disable it or enable it; what is pending goes to where it is then."""
    wanted = await read_as(request, webhook_schemas.WebhookEndpointChanges)
    changes = Changes(wanted.name, wanted.url, wanted.event_types, wanted.enabled)
    given = context.caller, webhook_endpoint_id, changes
    webhooks = context.operations.webhooks
    return JsonAnswer(
        _endpoint(await context.services.webhook_threads.run(webhooks.change, *given))
    )


@routes.delete(ENDPOINT)
def delete_endpoint(context: InContext, webhook_endpoint_id: Segment) -> JsonAnswer:
    """Delete an endpoint, its log, and what waits to be sent to it."""
    context.operations.webhooks.delete(context.caller, webhook_endpoint_id)
    return JsonAnswer(Deleted(webhook_endpoint_id, "webhook_endpoint.deleted", deleted=True))


@routes.post(f"{ENDPOINT}/rotate_secret")
async def rotate_secret(
    context: InContext, webhook_endpoint_id: Segment, request: Request
) -> JsonAnswer:
    """Give an endpoint a new secret, which the answer has; the old one can sign beside it for a day."""
    wanted = await read_as(request, webhook_schemas.SecretRotation)
    rotated = await run_in_threadpool(
        context.operations.webhooks.rotate,
        context.caller,
        webhook_endpoint_id,
        keeps_old=wanted.keep_old_secret_active_for_24_hours,
    )
    return _with_secret(rotated)


@routes.post(f"{ENDPOINT}/test")
async def test_endpoint(
    context: InContext, webhook_endpoint_id: Segment, request: Request
) -> JsonAnswer:
    """Send a sample event now, and return the status of the endpoint's answer."""
    wanted = await read_as(request, webhook_schemas.WebhookTest)
    given = context.caller, webhook_endpoint_id, wanted.event_type
    webhooks = context.operations.webhooks
    status = await context.services.webhook_threads.run(webhooks.test, *given)
    return JsonAnswer(
        webhook_schemas.WebhookTestResult(
            object="webhook_endpoint.test",
            webhook_endpoint_id=webhook_endpoint_id,
            event_type=wanted.event_type,
            status_code=status,
            success=True,
        )
    )


@routes.get(f"{ENDPOINT}/deliveries")
def list_deliveries(
    context: InContext,
    webhook_endpoint_id: Segment,
    *,
    status: Literal["pending", "delivered", "failed"] | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
) -> Response:
    """List what was and is to be sent to an endpoint, newest first."""
    found = context.operations.webhooks.deliveries(
        context.caller,
        webhook_endpoint_id,
        state=None if status is None else DeliveryState(status),
        after=after,
        limit=limit + 1,
    )
    return listing.page((_delivery(one, webhook_endpoint_id) for one in found), limit)


@routes.post(f"{ENDPOINT}/deliveries/{{delivery_id}}/redeliver")
def redeliver(context: InContext, webhook_endpoint_id: Segment, delivery_id: Segment) -> JsonAnswer:
    """Send an event again, with the same id."""
    found = context.operations.webhooks.redeliver(context.caller, webhook_endpoint_id, delivery_id)
    return JsonAnswer(_delivery(found, webhook_endpoint_id))


def _endpoint(shown: Shown) -> webhook_schemas.WebhookEndpoint:
    return webhook_schemas.WebhookEndpoint(**_fields(shown))


def _with_secret(shown: Shown) -> JsonAnswer:
    assert shown.details is not None, "it was just sealed"
    answer = webhook_schemas.WebhookEndpointWithSecret(
        **_fields(shown), signing_secret=shown.details.secret
    )
    return JsonAnswer(answer, headers={"cache-control": "no-store"})


def _fields(shown: Shown) -> dict[str, Any]:
    of, details = shown.endpoint, shown.details
    return {
        "id": of.id,
        "object": "webhook_endpoint",
        "name": details.name if details else "",
        "url": details.url if details else "",
        "event_types": list(of.event_types),
        "created_at": of.created_at // MICROS,
        "updated_at": of.updated_at // MICROS,
        "signing_secret_hint": signing.hint_of(details.secret) if details else None,
        "enabled": of.disabled_at is None,
        "disabled_at": _seconds(of.disabled_at),
        "disabled_because": of.disabled_because.value if of.disabled_because else None,
        "failing_since": _seconds(of.failing_since),
        "pending": of.pending,
        "delivered": of.delivered,
        "failed": of.failed,
        "dropped": of.dropped,
    }


def _delivery(found: Delivery, endpoint_id: str) -> webhook_schemas.WebhookDelivery:
    is_pending = found.state is DeliveryState.PENDING
    return webhook_schemas.WebhookDelivery(
        id=found.id,
        object="webhook_delivery",
        webhook_endpoint_id=endpoint_id,
        event_id=found.event_id,
        event_type=found.event_type,
        created_at=found.created_at // MICROS,
        status=found.state.value,
        attempts=found.attempts,
        next_attempt_at=found.due_at // MICROS if is_pending else None,
        last_attempt_at=_seconds(found.attempted_at),
        status_code=found.status,
        error=found.error,
        milliseconds=found.milliseconds,
    )


def _seconds(micros: int | None) -> int | None:
    return None if micros is None else micros // MICROS

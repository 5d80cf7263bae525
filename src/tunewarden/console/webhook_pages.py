"""Webhooks: endpoints, what was sent to them, and sending again. A secret is shown once, when it is made."""

from collections.abc import Sequence
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.console import confirming, lists, rendering, tables
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action
from tunewarden.webhooks.endpoint_rows import Endpoint
from tunewarden.webhooks.endpoints import Changes, Shown
from tunewarden.webhooks.event_types import WebhookEventType
from tunewarden.webhooks.outbox import Delivery, DeliveryState

STATES = {state.value: state for state in DeliveryState}
HERE = "/console/webhooks"
# These need a recent proof of identity: they end notices of deletions, or show a secret.
PROVED = {
    "disable": "Disable the endpoint",
    "rotate": "Make a new secret",
    "delete": "Delete the endpoint",
}


async def create_endpoint(visit: Visit) -> Response:
    """Make an endpoint, and show its secret."""
    asked, webhooks = visit.asked, visit.operations.webhooks
    given = asked.sent("name").strip(), asked.sent("url").strip(), asked.form.get("event_types", [])
    made = await asked.services.webhook_threads.run(webhooks.create, visit.caller, *given)
    return _secret(visit, made)


def _read_deliveries(
    visit: Visit, after: str | None, limit: int
) -> tuple[Sequence[Delivery], str | None]:
    found = visit.operations.webhooks.deliveries(
        visit.caller,
        visit.asked.segments["endpoint_id"],
        state=_state(visit),
        after=after,
        limit=limit + 1,
    )
    return lists.cut(found, lambda one: one.id, limit)


def _state(visit: Visit) -> DeliveryState | None:
    return STATES.get(visit.asked.asked_choice("state", STATES))


DELIVERIES = Table[Delivery](
    "deliveries",
    _read_deliveries,
    {
        "id": lambda one: one.id,
        "event_id": lambda one: one.event_id,
        "event_type": lambda one: one.event_type,
        "state": lambda one: one.state.value,
        "attempts": lambda one: one.attempts,
        "status": lambda one: one.status,
        "error": lambda one: one.error,
        "milliseconds": lambda one: one.milliseconds,
        "created_at": lambda one: tables.instant(one.created_at),
        "attempted_at": lambda one: tables.instant(one.attempted_at),
    },
)


@tables.also_as(DELIVERIES)
def show_endpoint(visit: Visit) -> Response:
    """Return one endpoint, with a page of its deliveries."""
    shown = visit.operations.webhooks.find(visit.caller, visit.asked.segments["endpoint_id"])
    state = _state(visit)
    _, values = DELIVERIES.page(visit)
    values |= {
        "endpoint": shown.endpoint,
        "details": shown.details,
        "state": state.value if state else None,
        "states": list(STATES),
        "write_action": Action.WRITE_WEBHOOKS,
    }
    return rendering.page(visit, "webhook.html", values)


async def change_endpoint(visit: Visit) -> Response:
    """Enable, disable, test or delete an endpoint, or give it a new secret."""
    asked, webhooks = visit.asked, visit.operations.webhooks
    run = asked.services.webhook_threads.run
    endpoint_id = asked.segments["endpoint_id"]
    act = asked.sent("act")
    if act in PROVED:
        refused = await confirming.asked_again(visit, PROVED[act])
        if refused is not None:
            return refused
    if act in {"enable", "disable"}:
        await run(webhooks.change, visit.caller, endpoint_id, Changes(enabled=act == "enable"))
    elif act == "test":
        await run(webhooks.test, visit.caller, endpoint_id, asked.sent("event_type"))
    elif act == "rotate":
        rotate = partial(webhooks.rotate, visit.caller, endpoint_id, keeps_old=True)
        return _secret(visit, await run_in_threadpool(rotate))
    elif act == "delete":
        await run(webhooks.delete, visit.caller, endpoint_id)
        return rendering.to(HERE)
    else:
        raise Error(Kind.INVALID, "The form does not say what to do with the endpoint.")
    return rendering.to(f"{HERE}/{segment(endpoint_id)}")


def redeliver(visit: Visit) -> Response:
    """Send an event again."""
    segments = visit.asked.segments
    endpoint_id = segments["endpoint_id"]
    visit.operations.webhooks.redeliver(visit.caller, endpoint_id, segments["delivery_id"])
    return rendering.to(f"{HERE}/{segment(endpoint_id)}")


def state_of(endpoint: Endpoint) -> str:
    """Return the state of an endpoint."""
    return "disabled" if endpoint.disabled_at else "failing" if endpoint.failing_since else "active"


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Shown], str | None]:
    found = visit.operations.webhooks.page(visit.caller, after=after, limit=limit + 1)
    return lists.cut(found, lambda one: one.endpoint.id, limit)


ENDPOINTS = Table[Shown](
    "webhooks",
    _read,
    {
        "id": lambda one: one.endpoint.id,
        "name": lambda one: one.details.name if one.details else None,
        "url": lambda one: one.details.url if one.details else None,
        "state": lambda one: state_of(one.endpoint),
        "event_types": lambda one: " ".join(one.endpoint.event_types),
        "waiting": lambda one: one.endpoint.pending,
        "delivered": lambda one: one.endpoint.delivered,
        "failed": lambda one: one.endpoint.failed,
    },
)


@tables.also_as(ENDPOINTS)
def list_endpoints(visit: Visit) -> Response:
    """Return a page of endpoints, the oldest first, with the form that makes one."""
    _, values = ENDPOINTS.page(visit)
    values |= {
        "state_of": state_of,
        "event_types": [one.value for one in WebhookEventType],
        "write_action": Action.WRITE_WEBHOOKS,
    }
    return rendering.page(visit, "webhooks.html", values)


def _secret(visit: Visit, made: Shown) -> Response:
    assert made.details is not None, "it was just sealed"
    values = {"endpoint": made.endpoint, "secret": made.details.secret}
    return rendering.page(visit, "webhook_secret.html", values)


PAGES = (
    Page("GET", HERE, list_endpoints),
    Page("POST", HERE, create_endpoint),
    Page("GET", f"{HERE}/{{endpoint_id}}", show_endpoint),
    Page("POST", f"{HERE}/{{endpoint_id}}", change_endpoint),
    Page("POST", f"{HERE}/{{endpoint_id}}/deliveries/{{delivery_id}}", redeliver),
)

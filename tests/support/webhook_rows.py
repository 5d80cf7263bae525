"""Endpoints and deliveries for tests, made by the operations, with URLs on this machine that no server sends to."""

from tests.support import fine_tuning_rows

from tunewarden.app import App
from tunewarden.clock import Clock, SystemClock
from tunewarden.webhooks import outbox
from tunewarden.webhooks.addresses import AddressPolicy
from tunewarden.webhooks.attempts import Attempts
from tunewarden.webhooks.details import Sealer
from tunewarden.webhooks.endpoints import Endpoints
from tunewarden.webhooks.event_types import WebhookEventType

NOWHERE = "http://127.0.0.1:9099/"


def sealer(app: App) -> Sealer:
    return Sealer(app.open_log()[1].derive)


def operations(app: App, clock: Clock | None = None) -> Endpoints:
    """The operations, which allow this machine's addresses."""
    clock = clock or SystemClock()
    return Endpoints(
        app.database, clock, sealer(app), Attempts(AddressPolicy(http_to_loopback=True), clock)
    )


def make_endpoint(app: App, key: str, *event_types: WebhookEventType, url: str = NOWHERE) -> str:
    """Make an endpoint of the organization of whoever holds the key; return its id."""
    caller = fine_tuning_rows.caller_of(app, key)
    types = event_types or tuple(WebhookEventType)
    return operations(app).create(caller, "test", url, types).endpoint.id


def make_delivery(app: App, key: str, endpoint_id: str) -> str:
    """Queue an event; return the id of its delivery to an endpoint that asks for all."""
    caller = fine_tuning_rows.caller_of(app, key)
    with app.database.write() as tx:
        outbox.publish(tx, caller.organization_id, WebhookEventType.RETENTION_UPCOMING, "x")
    found = operations(app).deliveries(caller, endpoint_id, state=None, after=None, limit=1)
    return found[0].id

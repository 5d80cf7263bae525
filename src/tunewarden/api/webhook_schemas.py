"""Types of request and response bodies, for the OpenAPI document: webhooks, as OpenAI's SDK has them. See `schemas`."""

from typing import Literal

from msgspec import Struct

from tunewarden.api import schemas
from tunewarden.api.described import Described
from tunewarden.api.schemas import Seconds


class NewWebhookEndpoint(Struct, forbid_unknown_fields=True):
    """An endpoint: an https `url`, and the types of events that are sent there."""

    name: str
    url: str
    event_types: list[str]


class WebhookEndpointChanges(Struct, forbid_unknown_fields=True):
    """What to change; `event_types` replaces all of them."""

    name: str | None = None
    url: str | None = None
    event_types: list[str] | None = None
    enabled: bool | None = None


class SecretRotation(Struct, forbid_unknown_fields=True):
    """Whether the secret before signs beside the new one for a day."""

    keep_old_secret_active_for_24_hours: bool = False


class WebhookTest(Struct, forbid_unknown_fields=True):
    """A test: a sample event of this type."""

    event_type: str


class WebhookEndpoint(Struct, forbid_unknown_fields=True):
    """An endpoint. `name` and `url` are empty and the hint is null if they were sealed by another server.

    `pending` to `dropped` count its deliveries. `failing_since`: since when no attempt has succeeded.
    """

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    url: str
    event_types: list[str]
    created_at: Seconds
    updated_at: Seconds
    signing_secret_hint: str | None
    enabled: bool
    disabled_at: Seconds | None
    disabled_because: Literal["owner", "failing", "gone", "unreadable"] | None
    failing_since: Seconds | None
    pending: int
    delivered: int
    failed: int
    dropped: int


class WebhookEndpointWithSecret(WebhookEndpoint, forbid_unknown_fields=True):
    """An endpoint with its secret, which is not shown again."""

    signing_secret: str


class WebhookTestResult(Struct, forbid_unknown_fields=True):
    """What an endpoint answered to a test."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True]


class WebhookEventTypes(Struct, forbid_unknown_fields=True):
    """The types of events that endpoints can ask for."""

    object: Literal["list"]
    data: list[str]


class WebhookDelivery(Struct, forbid_unknown_fields=True):
    """An event for one endpoint. `status_code`, `error` and `milliseconds` are the last attempt's."""

    id: str
    object: Literal["webhook_delivery"]
    webhook_endpoint_id: str
    event_id: str
    event_type: str
    created_at: Seconds
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    next_attempt_at: Seconds | None
    last_attempt_at: Seconds | None
    status_code: int | None
    error: str | None
    milliseconds: int | None


PATH = "/v1/webhook_endpoints"
ENDPOINT = f"{PATH}/{{webhook_endpoint_id}}"
ROUTED = {
    "GET /v1/webhook_event_types": Described("listWebhookEventTypes", WebhookEventTypes),
    f"POST {PATH}": Described(
        "createWebhookEndpoint", WebhookEndpointWithSecret, NewWebhookEndpoint
    ),
    f"GET {PATH}": Described("listWebhookEndpoints", schemas.Listing[WebhookEndpoint]),
    f"GET {ENDPOINT}": Described("retrieveWebhookEndpoint", WebhookEndpoint),
    f"POST {ENDPOINT}": Described("updateWebhookEndpoint", WebhookEndpoint, WebhookEndpointChanges),
    f"DELETE {ENDPOINT}": Described("deleteWebhookEndpoint", schemas.Deleted),
    f"POST {ENDPOINT}/rotate_secret": Described(
        "rotateWebhookEndpointSecret", WebhookEndpointWithSecret, SecretRotation
    ),
    f"POST {ENDPOINT}/test": Described("testWebhookEndpoint", WebhookTestResult, WebhookTest),
    f"GET {ENDPOINT}/deliveries": Described(
        "listWebhookDeliveries", schemas.Listing[WebhookDelivery]
    ),
    f"POST {ENDPOINT}/deliveries/{{delivery_id}}/redeliver": Described(
        "redeliverWebhook", WebhookDelivery
    ),
}

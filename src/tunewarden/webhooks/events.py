"""The body of an event, in OpenAI's form. It has ids only: who may know more asks with them, and is authorized then."""

import json

from tunewarden.json_encoding import encoded
from tunewarden.webhooks.outbox import Delivery


def body(delivery: Delivery) -> bytes:
    """Return the JSON that is sent, the same bytes in each attempt."""
    return encoded(
        {
            "id": delivery.event_id,
            "object": "event",
            "created_at": delivery.created_at // 1_000_000,
            "type": delivery.event_type,
            "data": json.loads(delivery.data),
        }
    )

"""Secrets and signatures, as Standard Webhooks have them (symmetric, `v1`)."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from tunewarden import __version__
from tunewarden.ids import random_bytes

SECRET_PREFIX = "whsec_"  # noqa: S105  what secrets begin with
SECRET_BYTES = 32


def new_secret() -> str:
    """Return a new secret such as `whsec_MfKQ…`."""
    return SECRET_PREFIX + base64.b64encode(random_bytes(SECRET_BYTES)).decode()


def hint_of(secret: str) -> str:
    """Return what may be shown of a secret: enough to tell it from another."""
    return f"{SECRET_PREFIX}…{secret[-5:]}"


def headers(
    secrets: Sequence[str], event_id: str, body: bytes, *, at_seconds: int
) -> dict[str, str]:
    """Return the headers of one attempt, with a signature by each secret."""
    signed = f"{event_id}.{at_seconds}.".encode() + body
    return {
        "content-type": "application/json",
        "user-agent": f"Tunewarden/{__version__}",
        "webhook-id": event_id,
        "webhook-timestamp": str(at_seconds),
        "webhook-signature": " ".join(f"v1,{_signature(secret, signed)}" for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()

"""OpenAI's metadata: up to 16 pairs of text that a client attaches to an object, sealed under an artifact's key.

Deleting the artifact erases the key, and with it the metadata (I18).
"""

import json

from tunewarden.artifacts import sealed_text
from tunewarden.artifacts.keyring import Keyring
from tunewarden.artifacts.strict_json import Malformed, is_text, parse_object
from tunewarden.errors import Error, Kind

PAIRS_MAX = 16
KEY_LENGTH_MAX = 64
VALUE_LENGTH_MAX = 512


def checked(value: object) -> dict[str, str] | None:
    """Return validated metadata; null is absent. Raises Error(INVALID)."""
    if value is None:
        return None
    if not isinstance(value, dict) or not all(
        isinstance(text, str) and is_text(text) for text in (*value, *value.values())
    ):
        raise Error(
            Kind.INVALID, "'metadata' must be an object whose values are text.", param="metadata"
        )
    if (
        len(value) > PAIRS_MAX
        or any(len(key) > KEY_LENGTH_MAX for key in value)
        or any(len(text) > VALUE_LENGTH_MAX for text in value.values())
    ):
        raise Error(
            Kind.INVALID,
            f"'metadata' must have at most {PAIRS_MAX} pairs, with keys of up to {KEY_LENGTH_MAX} and values of up to"
            f" {VALUE_LENGTH_MAX} characters.",
            param="metadata",
        )
    return value


def parsed(text: str) -> dict[str, str] | None:
    """Return validated metadata of a form's field, JSON; an empty field is absent. Raises Error(INVALID)."""
    if not text:
        return None
    try:
        return checked(parse_object(text.encode(), max_values=PAIRS_MAX * VALUE_LENGTH_MAX))
    except Malformed as error:
        raise Error(Kind.INVALID, f"'metadata' {error}.", param="metadata") from error


def seal(keyring: Keyring, key_id: str, internal_id: str, metadata: dict[str, str]) -> bytes:
    """Encrypt metadata for a row. `internal_id` is the object's whose metadata it is. Raises KeyErased."""
    return sealed_text.seal(sealed_text.key_of(keyring, key_id), internal_id, json.dumps(metadata))


def unseal(secret: bytes, internal_id: str, sealed: bytes) -> dict[str, str]:
    """Decrypt metadata with the key's secret (`sealed_text.keys_of`). Raises Error(UNAVAILABLE) if it is damaged."""
    opened: dict[str, str] = json.loads(sealed_text.unseal(secret, internal_id, sealed))
    return opened

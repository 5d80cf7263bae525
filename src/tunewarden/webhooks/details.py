"""What an Owner set up of an endpoint, sealed in its row: names and URLs may tell of people, and some URLs are secrets.

The key follows from the log's signing key, so that a copy of the database opens nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import msgspec

from tunewarden.artifacts import sealed_text
from tunewarden.errors import Error

PURPOSE = b"tunewarden webhooks 1"
OLD_SECRET_MICROS = 86_400 * 1_000_000


class Details(msgspec.Struct, frozen=True):
    """An endpoint's name, URL and secret; and the secret before it, while that is valid, in microseconds since 1970."""

    name: str
    url: str
    secret: str
    old_secret: str | None = None
    old_until: int = 0

    def secrets(self, now_micros: int) -> list[str]:
        """Return the secrets that sign now, the current one first."""
        if self.old_secret is None or now_micros >= self.old_until:
            return [self.secret]
        return [self.secret, self.old_secret]


@dataclass(frozen=True)
class Sealer:
    """Seals details. `derive` makes the key when it is first needed: it loads OpenSSL."""

    derive: Callable[[bytes], bytes]

    def seal(self, endpoint_id: str, details: Details) -> bytes:
        """Return sealed details. Raises Error(UNAVAILABLE) if the log's key cannot be read."""
        return sealed_text.seal(self._key, endpoint_id, msgspec.json.encode(details).decode())

    def open(self, endpoint_id: str, sealed: bytes) -> Details:
        """Return details. Raises Error(UNAVAILABLE) if they were sealed under another key, or that cannot be read."""
        return msgspec.json.decode(sealed_text.unseal(self._key, endpoint_id, sealed), type=Details)

    def open_if_possible(self, endpoint_id: str, sealed: bytes) -> Details | None:
        """Return details, or None."""
        try:
            return self.open(endpoint_id, sealed)
        except Error:
            return None

    @cached_property
    def _key(self) -> bytes:
        return self.derive(PURPOSE)

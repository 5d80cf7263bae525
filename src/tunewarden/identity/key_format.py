"""The text of keys: `sk-tw-<id>-<secret><checksum>`, and `sk-tw-admin-…` of admin keys. Shown once, stored as SHA-256.

The secret has 256 bits, so a fast hash is enough (a slow one is for guessable secrets). The
checksum rejects mistyped and invented keys without SQL; the id finds the row, and the
secret is compared in constant time.
"""

import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass

from tunewarden.errors import Error, Kind
from tunewarden.ids import ALPHANUMERICS, Prefix, token

ID_LENGTH = 16
SECRET_LENGTH = 43  # 43 alphanumerics carry 256 bits
CHECKSUM_LENGTH = 6
PREFIX = "sk-tw-"
ADMIN_PREFIX = f"{PREFIX}admin-"
FORMAT = re.compile(
    rf"{PREFIX}(admin-)?([A-Za-z0-9]{{{ID_LENGTH}}})-([A-Za-z0-9]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}})"
)
NAME_LENGTH_MAX = 100
# How much of a key errors and lists show.
SHOWN_LENGTH = 6


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed key from a request, not looked up yet; `shown` is its redacted form for errors."""

    id: str
    digest: bytes
    shown: str

    @property
    def is_admin(self) -> bool:
        """Whether it is an admin key."""
        return self.id.startswith(f"{Prefix.ADMIN_KEY}_")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A new key: its id, the text to show once, and the digest to store."""

    id: str
    text: str
    digest: bytes


def generate(prefix: Prefix) -> NewSecret:
    """Return a new key of a kind: `Prefix.API_KEY` or `Prefix.ADMIN_KEY`."""
    body, secret = token(ID_LENGTH), token(SECRET_LENGTH)
    begin = ADMIN_PREFIX if prefix is Prefix.ADMIN_KEY else PREFIX
    text = f"{begin}{body}-{secret}{checksum(body + secret)}"
    return NewSecret(f"{prefix}_{body}", text, _digest(secret))


def redacted(key_id: str) -> str:
    """Return a key as lists show it: its id without its secret."""
    kind, _, body = key_id.partition("_")
    begin = ADMIN_PREFIX if kind == Prefix.ADMIN_KEY else PREFIX
    return f"{begin}{body}-***"


def present(text: str) -> Presented:
    """Parse a key, without looking it up. Raises Error(UNAUTHENTICATED)."""
    match = FORMAT.fullmatch(text)
    if match is None:
        raise refused(text[:SHOWN_LENGTH], is_admin=text.startswith(ADMIN_PREFIX))
    body, secret = match[2], match[3][:SECRET_LENGTH]
    if not hmac.compare_digest(checksum(body + secret), match[3][SECRET_LENGTH:]):
        raise refused(text[:SHOWN_LENGTH], is_admin=match[1] is not None)
    prefix = Prefix.ADMIN_KEY if match[1] else Prefix.API_KEY
    return Presented(f"{prefix}_{body}", _digest(secret), text[:SHOWN_LENGTH])


def check_name(name: str) -> None:
    """Check the name of a key. Raises Error(INVALID)."""
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable():
        raise Error(
            Kind.INVALID, "Invalid key name: use 1 to 100 printable characters.", param="name"
        )


def checksum(text: str) -> str:
    """Return the checksum that ends a key."""
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHANUMERICS))
        digits += ALPHANUMERICS[digit]
    return digits


def refused(beginning: str, *, is_admin: bool = False) -> Error:
    """Return the error for a key that is malformed, unknown or revoked: the same for every reason."""
    shown = f"{beginning}…" if beginning.startswith("sk-") else "(not shown)"
    command = "admin-keys create" if is_admin else "keys create"
    return Error(
        Kind.UNAUTHENTICATED,
        f"Incorrect API key provided: {shown}. Make one with `tunewarden {command}`.",
        code="invalid_api_key",
    )


class Expired(Error):
    """The refusal of the right secret of a key that has expired.

    `is_noted` if its row says so already; else who refuses records it (`expiry.note`), so that no clock that is set
    back revives the key.
    """

    def __init__(self, key_id: str, *, is_noted: bool) -> None:
        super().__init__(
            Kind.UNAUTHENTICATED,
            "The API key has expired. Ask who administers your organization for a new one.",
            code="invalid_api_key",
        )
        self.key_id = key_id
        self.is_noted = is_noted


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

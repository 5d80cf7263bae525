"""Identifiers and all randomness outside cryptography.

Every kind of thing has its own prefix; the list only grows and a prefix is never given a second
meaning. Ids are 24 alphanumerics (142 bits), so two are never equal and none is ever used twice.
"""

import secrets
import string
from enum import StrEnum

ALPHANUMERICS = string.ascii_letters + string.digits


class Prefix(StrEnum):
    """What an id names."""

    ORGANIZATION = "org"
    USER = "user"
    PROJECT = "proj"
    API_KEY = "key"
    DELETION = "del"
    AUDIT_EVENT = "audit_log"
    REQUEST = "req"
    COMPLETION = "cmpl"
    CHAT_COMPLETION = "chatcmpl"
    SLOT = "m"


def token(length: int) -> str:
    """Return `length` random alphanumerics (5.95 bits each) from the system's generator."""
    return "".join(secrets.choice(ALPHANUMERICS) for _ in range(length))


def mint(prefix: Prefix) -> str:
    """Return a new id such as `del_3kTz…`."""
    return f"{prefix}_{token(24)}"


def random_bytes(length: int) -> bytes:
    """Return `length` bytes from the system's generator."""
    return secrets.token_bytes(length)

"""Identifiers and all randomness outside cryptography.

Every kind of object has its own prefix; prefixes are only ever added and never change their
meaning. Ids are 24 random alphanumerics (142 bits), so collisions and reuse are practically impossible.
"""

import os
import secrets
import string
from enum import StrEnum

ALPHANUMERICS = string.ascii_letters + string.digits
# Maps random bytes to alphanumerics, four bytes each; the last 8 of 256 are rejected, for a uniform distribution.
_FAIR = 256 - 256 % len(ALPHANUMERICS)
_BYTE_TO_ALPHANUMERIC = bytes(ord(ALPHANUMERICS[byte % len(ALPHANUMERICS)]) for byte in range(256))
_UNFAIR_BYTES = bytes(range(_FAIR, 256))


# Our ids are shorter. An error repeats at most this many characters of an id that a client sent.
SHOWN_MAX = 256


def shown(text: str) -> str:
    """Return an id that a client sent for an error message: shortened if it is very long."""
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


class Prefix(StrEnum):
    """Prefixes of ids, by kind of object."""

    ORGANIZATION = "org"
    USER = "user"
    PROJECT = "proj"
    API_KEY = "key"
    SESSION = "session"
    ADMIN_KEY = "adminkey"
    INVITE = "invite"
    DELETION = "del"
    CASE = "case"
    HOLD = "hold"
    BULK_DELETION = "bulk"
    EXPORT = "export"
    RETENTION_RULE = "rule"
    AUDIT_EVENT = "audit_log"
    REQUEST = "req"
    COMPLETION = "cmpl"
    CHAT_COMPLETION = "chatcmpl"
    SLOT = "m"
    FILE = "file"
    UPLOAD = "upload"
    UPLOAD_PART = "part"
    JOB = "ftjob"
    JOB_EVENT = "ftevent"
    CHECKPOINT = "ftckpt"
    PERMISSION = "cp"
    TOOL_CALL = "call"
    RESPONSE = "resp"
    MESSAGE = "msg"
    FUNCTION_CALL = "fc"
    WEBHOOK_ENDPOINT = "whe"
    WEBHOOK_DELIVERY = "whd"
    WEBHOOK_EVENT = "evt"


TOKEN_LENGTH = 24
REQUEST_ID_LENGTH = 24
REQUESTS_AHEAD = 128
# Pre-generated request ids: not secret. A child process must not use its parent's.
_ahead = bytearray()
os.register_at_fork(after_in_child=_ahead.clear)

# OpenAI uses a dash in these.
_DASHED = frozenset({Prefix.FILE, Prefix.JOB, Prefix.JOB_EVENT, Prefix.INVITE})


def token(length: int) -> str:
    """Return `length` random alphanumerics (5.95 bits each) from the system's generator."""
    found = b""
    while len(found) < length:
        found += secrets.token_bytes(length + 8).translate(_BYTE_TO_ALPHANUMERIC, _UNFAIR_BYTES)
    return found[:length].decode()


def mint_request() -> str:
    """Return a new request id, like `mint`; random bytes are drawn for many ids at once."""
    if len(_ahead) < REQUEST_ID_LENGTH:
        _ahead[:] = token(REQUEST_ID_LENGTH * REQUESTS_AHEAD).encode()
    found = _ahead[-REQUEST_ID_LENGTH:].decode()
    del _ahead[-REQUEST_ID_LENGTH:]
    return f"{Prefix.REQUEST}_{found}"


def mint(prefix: Prefix) -> str:
    """Return a new id such as `del_3kTz…`."""
    return f"{prefix}{'-' if prefix in _DASHED else '_'}{token(TOKEN_LENGTH)}"


def is_minted(text: str, prefix: Prefix) -> bool:
    """Return whether `mint` may have made an id."""
    dash = "-" if prefix in _DASHED else "_"
    kind, _, rest = text.partition(dash)
    return kind == prefix and len(rest) == TOKEN_LENGTH and set(rest) <= set(ALPHANUMERICS)


def random_bytes(length: int) -> bytes:
    """Return `length` bytes from the system's generator."""
    return secrets.token_bytes(length)

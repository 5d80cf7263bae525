"""The closed set of errors that a caller may see. `api/problems.py` maps each kind to the wire.

A message is always fit for the client: it names what to do and never a path, a secret or a
foreign exception's text. Any other exception that reaches a door is a bug (500, fixed text).
"""

from enum import StrEnum


class Kind(StrEnum):
    """What went wrong, seen from the caller."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    PRECONDITION_FAILED = "precondition_failed"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    ENGINE_FAILED = "engine_failed"
    UNAVAILABLE = "unavailable"


class Error(Exception):
    """An expected refusal or failure.

    `param` names the offending parameter and `code` is the machine-readable reason on the wire,
    both as in OpenAI's `error` object. `retry_after_seconds` is set when trying again may help.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_seconds = retry_after_seconds

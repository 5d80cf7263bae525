"""The closed set of errors that a caller may see. `problems.py` maps each kind to an HTTP response.

A message is always safe for the client: it says what to do and never contains a path, a secret or a
library's exception text. Any other exception at an outer boundary is a bug (500, fixed text).
"""

from enum import StrEnum


class Kind(StrEnum):
    """The kind of an error, from the caller's view."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    PRECONDITION_FAILED = "precondition_failed"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    HEAD_TOO_LARGE = "head_too_large"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    STORAGE_FULL = "storage_full"
    NOT_IMPLEMENTED = "not_implemented"
    ENGINE_FAILED = "engine_failed"
    UNAVAILABLE = "unavailable"
    # The operator must change something first: a retry does not help.
    MISCONFIGURED = "misconfigured"


class Error(Exception):
    """An expected refusal or failure.

    `param` names the offending parameter and `code` is the machine-readable reason,
    both as in OpenAI's `error` object; `type` is that object's, where it is not the kind's.
    `retry_after_seconds` is set if a retry may help; `deletion_case` is the id of the case that a retry joins.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str | None = None,  # noqa: A002  OpenAI's name
        retry_after_seconds: float | None = None,
        deletion_case: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code
        self.type = type
        self.retry_after_seconds = retry_after_seconds
        self.deletion_case = deletion_case
        # Whether the refusal is in the audit log already.
        self.is_recorded = False

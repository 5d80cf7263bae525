"""The one table from errors to the wire. Every body has OpenAI's four keys (section 9)."""

import json
from collections.abc import Mapping

from tunewarden.errors import Error, Kind

# Kind -> (status, OpenAI error type)
WIRE: dict[Kind, tuple[int, str]] = {
    Kind.INVALID: (400, "invalid_request_error"),
    Kind.UNAUTHENTICATED: (401, "invalid_request_error"),
    Kind.FORBIDDEN: (403, "invalid_request_error"),
    Kind.NOT_FOUND: (404, "invalid_request_error"),
    Kind.TOO_SLOW: (408, "invalid_request_error"),
    Kind.CONFLICT: (409, "invalid_request_error"),
    Kind.PRECONDITION_FAILED: (412, "invalid_request_error"),
    Kind.TOO_LARGE: (413, "invalid_request_error"),
    Kind.RATE_LIMITED: (429, "rate_limit_error"),
    Kind.ENGINE_FAILED: (502, "server_error"),
    Kind.UNAVAILABLE: (503, "server_error"),
}
INTERNAL = "The server had an error while processing your request. Its log has the details under the request id."


def status_of(error: Error) -> int:
    """Return the HTTP status for an error."""
    return WIRE[error.kind][0]


def body_of(error: Error) -> bytes:
    """Return the JSON body for an error."""
    return render(error.message, WIRE[error.kind][1], param=error.param, code=error.code)


def headers_of(error: Error) -> Mapping[str, str]:
    """Return the headers that tell an SDK whether to try again.

    Every SDK retries 409, 429 and 5xx by itself unless `x-should-retry` says otherwise.
    """
    headers: dict[str, str] = {}
    if error.kind is Kind.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        headers["retry-after"] = f"{error.retry_after_seconds:g}"
        headers["x-should-retry"] = "true"
    elif error.kind in {Kind.CONFLICT, Kind.RATE_LIMITED}:
        headers["x-should-retry"] = "false"
    return headers


def render(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> bytes:
    """Return an OpenAI error body."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode()

"""The one mapping from errors to HTTP responses. Every body has OpenAI's four keys (section 9)."""

import math
from http import HTTPStatus
from typing import NamedTuple

from tunewarden.errors import Error, Kind
from tunewarden.json_encoding import encoded

# Kind -> (status, OpenAI error type)
WIRE: dict[Kind, tuple[int, str]] = {
    Kind.INVALID: (400, "invalid_request_error"),
    Kind.UNAUTHENTICATED: (401, "invalid_request_error"),
    Kind.FORBIDDEN: (403, "invalid_request_error"),
    Kind.NOT_FOUND: (404, "invalid_request_error"),
    Kind.METHOD_NOT_ALLOWED: (405, "invalid_request_error"),
    Kind.TOO_SLOW: (408, "invalid_request_error"),
    Kind.CONFLICT: (409, "invalid_request_error"),
    Kind.PRECONDITION_FAILED: (412, "invalid_request_error"),
    Kind.TOO_LARGE: (413, "invalid_request_error"),
    Kind.UNSUPPORTED_MEDIA_TYPE: (415, "invalid_request_error"),
    Kind.HEAD_TOO_LARGE: (431, "invalid_request_error"),
    Kind.RATE_LIMITED: (429, "rate_limit_error"),
    Kind.QUOTA_EXCEEDED: (429, "insufficient_quota"),
    Kind.NOT_IMPLEMENTED: (501, "invalid_request_error"),
    Kind.ENGINE_FAILED: (502, "server_error"),
    Kind.UNAVAILABLE: (503, "server_error"),
    Kind.MISCONFIGURED: (503, "server_error"),
    Kind.STORAGE_FULL: (507, "server_error"),
}
# Without `retry_after_seconds`: a retry does not help.
FINAL = {
    Kind.CONFLICT,
    Kind.RATE_LIMITED,
    Kind.QUOTA_EXCEEDED,
    Kind.MISCONFIGURED,
    Kind.STORAGE_FULL,
}
INTERNAL = "The server had an error while processing your request. Its log has the details under the request id."


class Wire(NamedTuple):
    """An error as an HTTP response. Header names are in lower case, as in ASGI."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def wire(error: Exception) -> Wire:
    """Return the response of an error. Anything but Error is a bug: 500 and a fixed text."""
    if isinstance(error, Error):
        status, kind = WIRE[error.kind]
        body = _body(error.message, error.type or kind, error.param, error.code)
    else:
        status, body = 500, _body(INTERNAL, "server_error", None, None)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if isinstance(error, Error):
        headers += _advice(error)
    return Wire(status, headers, body)


def lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return headers as HTTP/1.1 header lines."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def last_answer(error: Error, request_id: str) -> bytes:
    """Return a complete error response that closes the connection, for input that is not a valid request."""
    status, headers, body = wire(error)
    headers += [(b"connection", b"close"), (b"x-request-id", request_id.encode())]
    phrase = HTTPStatus(status).phrase.encode()
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, phrase, lines(headers), body)


def _advice(error: Error) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell an SDK whether to retry.

    SDKs retry 409, 429 and 5xx unless `x-should-retry` is false.
    """
    headers = []
    if error.kind is Kind.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.deletion_case is not None:
        headers.append((b"tunewarden-deletion-case", error.deletion_case.encode()))
    if error.retry_after_seconds is not None:
        seconds = error.retry_after_seconds
        headers.append((b"retry-after", b"%d" % math.ceil(seconds)))
        if seconds % 1:
            headers.append((b"retry-after-ms", b"%d" % math.ceil(seconds * 1000)))
        headers.append((b"x-should-retry", b"true"))
    elif error.kind in FINAL:
        headers.append((b"x-should-retry", b"false"))
    return headers


def _body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return encoded({"error": error})

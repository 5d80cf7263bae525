"""CORS: which browser pages may read this server's answers (the setting `cors_origins`).

A key goes in a header that the page must set, never in a cookie, so credentials are not allowed.
"""

import re
from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

METHODS = b"GET, HEAD, POST, DELETE"
EXPOSED = (
    b"x-request-id, retry-after, x-should-retry, openai-organization, openai-processing-ms,"
    b" openai-version, content-disposition"
)
PREFLIGHT_SECONDS = b"600"
# A list of header names, of which SDKs send a dozen.
NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?: *, *[A-Za-z0-9!#$%&'*+.^_`|~-]+){0,63}")
NAMES_BYTES_MAX = 2048
ANY = "*"


class Cors:
    """The origins that are allowed: an empty set allows none, `*` any."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._allows_any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, request: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return what every answer to a request with these headers carries."""
        if self._allows_any:
            allowed: Headers = [(b"access-control-allow-origin", ANY.encode())]
        else:
            allowed = [(b"vary", b"origin")]
            origin = _value(request, b"origin")
            if origin not in self._origins:
                return allowed
            allowed.append((b"access-control-allow-origin", origin))
        return [*allowed, (b"access-control-expose-headers", EXPOSED)]

    def lines(self, request: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the same as header lines."""
        return b"".join([b"%b: %b\r\n" % header for header in self.headers(request)])


def is_preflight(method: str, request: Headers) -> bool:
    """Return whether a browser asks if a page may send a request."""
    return (
        method == "OPTIONS"
        and bool(_value(request, b"origin"))
        and bool(_value(request, b"access-control-request-method"))
    )


def permission(request: Headers) -> Headers:
    """Return what the answer to a preflight carries in addition: no path has other methods or headers."""
    headers = [
        (b"access-control-allow-methods", METHODS),
        (b"access-control-max-age", PREFLIGHT_SECONDS),
    ]
    names = _value(request, b"access-control-request-headers")
    if len(names) <= NAMES_BYTES_MAX and NAMES.fullmatch(names):
        headers.append((b"access-control-allow-headers", names))
    return headers


def _value(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    return next((value for name, value in headers if name == wanted), b"")

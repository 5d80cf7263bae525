"""What a request to the console must be before anything else is looked at: for an allowed host, over TLS, from our pages.

A page elsewhere cannot read the console under a name of its own that it points here (DNS rebinding), because the name is
not allowed; and cannot send a form to it, because browsers say where a request comes from.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.settings import hosts, web_address

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
SAFE = frozenset({"GET", "HEAD"})
DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Way:
    """How a request came: to which host, and whether over TLS (else from the machine itself)."""

    host: str
    is_secure: bool

    @property
    def cookie(self) -> str:
        """The name of the session's cookie. Without TLS all servers of this machine share theirs: hence the port."""
        return "__Host-tunewarden" if self.is_secure else f"tunewarden-{_parted(self.host)[1]}"

    def set_cookie(self, secret: str, *, ends: bool = False) -> str:
        """Return a Set-Cookie header with a session's secret; the browser keeps it until it is closed."""
        path = "Path=/; Secure" if self.is_secure else "Path=/console"
        end = "; Max-Age=0" if ends else ""
        return f"{self.cookie}={secret}; {path}; HttpOnly; SameSite=Lax{end}"


class Guard:
    """The rules of one server."""

    def __init__(self, config: Config) -> None:
        public = web_address(config.public_url)
        self._public = urlsplit(public).netloc.lower() if public else None
        self._named = hosts(config.console_hosts)

    def way_of(self, headers: Headers) -> Way:
        """Return how a request came. Raises Error(FORBIDDEN): for a host that is not allowed, or without TLS."""
        host = headers.get("host", "").lower()
        name, port = _parted(host)
        if name in LOOPBACK:
            return Way(host, is_secure=False)
        allowed = {host, name if port in DEFAULT_PORTS.values() else host}
        if self._public not in allowed and not self._named & {host, name}:
            raise unknown_host()
        if not _is_over_tls(headers):
            raise needs_tls()
        return Way(host, is_secure=True)

    def check_origin(self, method: str, headers: Headers) -> None:
        """Check that what changes something was sent by a page of ours. Raises Error(FORBIDDEN)."""
        if method in SAFE:
            return
        site = headers.get("sec-fetch-site")
        if site is not None:
            is_ours = site in {"same-origin", "none"}
        else:
            is_ours = urlsplit(headers.get("origin", "")).netloc == headers.get("host")
        if not is_ours:
            raise Error(
                Kind.FORBIDDEN, "This form was sent by another site. Send it from its own page."
            )


def _is_over_tls(headers: Headers) -> bool:
    """Return whether the browser used TLS, which a proxy takes off: only then does it say where a request comes from."""
    origin = headers.get("origin")
    if origin is not None and origin != "null":
        return origin.startswith("https://")
    return "sec-fetch-site" in headers


def _parted(host: str) -> tuple[str, str]:
    """Return name and port of a Host header."""
    name, _, port = host.rpartition(":")
    return (name, port) if name and port.isdigit() else (host, "80")


def unknown_host() -> Error:
    """Return the error of a request to a name that is not allowed."""
    return Error(
        Kind.FORBIDDEN,
        "The console is not opened under this name. On the server's machine open it at http://127.0.0.1 and its port."
        " Elsewhere put a TLS proxy in front, which passes the Host header on, and set 'public_url' to its address"
        " (or 'console_hosts' to its names).",
        code="host_not_allowed",
    )


def needs_tls() -> Error:
    """Return the error of a request without TLS from another machine."""
    return Error(
        Kind.FORBIDDEN,
        "The console needs TLS here: without it, what you type and your session could be read on the way, and your"
        " browser cannot verify receipts. Put a TLS proxy in front and open its https:// address, or open the console"
        " at http://127.0.0.1 on the server's machine, for example through an SSH tunnel.",
        code="tls_needed",
    )

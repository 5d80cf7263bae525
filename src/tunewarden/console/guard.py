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
METHODS = SAFE | {"POST"}
DEFAULT_PORTS = {"http": "80", "https": "443"}
# What only a proxy sends. One that calls this machine by its own name hides which name the browser used.
OF_PROXIES = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


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

    @property
    def origin(self) -> str:
        """What a browser sends as the origin of our own pages."""
        return _origin("https" if self.is_secure else "http", self.host)

    @property
    def attempt_cookie(self) -> str:
        """The name of the cookie of an attempt to sign in at the identity provider."""
        return f"{self.cookie}-sso"

    def set_attempt(self, value: str, *, seconds: int) -> str:
        """Return a Set-Cookie header with such an attempt. Lax: the way back from the provider begins at another site."""
        path = "Path=/; Secure" if self.is_secure else "Path=/console"
        return f"{self.attempt_cookie}={value}; {path}; HttpOnly; SameSite=Lax; Max-Age={seconds}"


class Guard:
    """The rules of one server."""

    def __init__(self, config: Config) -> None:
        public = web_address(config.public_url)
        self._public = urlsplit(public).netloc.lower() if public else None
        self._public_origin = _origin(*_split(public)) if public else None
        self._named = hosts(config.console_hosts)

    def way_of(self, headers: Headers) -> Way:
        """Return how a request came. Raises Error(FORBIDDEN): for a host that is not allowed, or without TLS."""
        host = headers.get("host", "").lower()
        name, port = _parted(host)
        if name in LOOPBACK:
            if any(one in headers for one in OF_PROXIES):
                raise hidden_host()
            return Way(host, is_secure=False)
        allowed = {host, name if port in DEFAULT_PORTS.values() else host}
        if self._public not in allowed and not self._named & {host, name}:
            raise unknown_host()
        if not _is_over_tls(headers):
            raise needs_tls()
        return Way(host, is_secure=True)

    def check_origin(self, method: str, headers: Headers, way: Way) -> None:
        """Check that what changes something was sent by a page of ours. Raises Error(FORBIDDEN)."""
        if method in SAFE:
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin", "null")
        is_ours = site is None or site in {"same-origin", "none"}
        if origin == "null":  # as browsers say that do not want to tell: then the other header must
            is_ours = is_ours and site is not None
        elif _origin(*_split(origin)) not in {way.origin, self._public_origin}:
            if site == "same-origin":
                raise hidden_host()
            is_ours = False
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


def _split(address: str) -> tuple[str, str]:
    """Return scheme and host, with its port, of an address or an origin."""
    scheme, _, rest = address.lower().partition("://")
    return scheme, rest.partition("/")[0]


def _origin(scheme: str, host: str) -> str:
    """Return an origin, without the port that its scheme implies."""
    return f"{scheme}://{host.removesuffix(':' + DEFAULT_PORTS.get(scheme, ''))}"


def hidden_host() -> Error:
    """Return the error of a request through a proxy that does not say which name the browser used."""
    return Error(
        Kind.FORBIDDEN,
        "A proxy in front of this server sends the Host header of this machine in place of the one that your browser"
        " sent, so that your session could not be kept to TLS. Let the proxy pass the header on (nginx: `proxy_set_header"
        " Host $http_host;`, Apache: `ProxyPreserveHost On`; Caddy does by itself), set 'public_url' to its https:// address,"
        " and open that. On the server's machine open the console without the proxy, at http://127.0.0.1 and its port.",
        code="host_hidden",
    )


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

"""URLs of endpoints: one strict form, so that what is checked is what is connected to."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tunewarden.errors import Error, Kind

URL_LENGTH_MAX = 2048
# Lower ports are those of mail, name servers and the like.
PORT_MIN, PORT_MAX = 1024, 65_535
DEFAULT_PORTS = {"https": 443, "http": 80}
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.IGNORECASE,
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """A URL in its parts. `host` is a name in lower case or an address without brackets; `path` has the query."""

    is_tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == DEFAULT_PORTS["https" if self.is_tls else "http"]
        return host if is_default else f"{host}:{self.port}"


def parse(text: str) -> WebhookUrl:
    """Parse a URL. Raises Error(INVALID), which says what is wrong and never repeats the URL: it may hold a secret."""
    if len(text) > URL_LENGTH_MAX:
        raise refused(f"It is longer than {URL_LENGTH_MAX} characters.")
    if "@" in text.partition("://")[2].split("/", maxsplit=1)[0]:
        raise refused("It must not have a user or a password.")
    if "#" in text:
        raise refused("It must not have a fragment.")
    found = _URL.fullmatch(text)
    if found is None:
        raise refused("It must be an https:// URL of ASCII characters, a host, and a path.")
    scheme = found["scheme"].lower()
    usual = DEFAULT_PORTS[scheme]
    port = int(found["port"] or usual)
    if port != usual and not PORT_MIN <= port <= PORT_MAX:
        raise refused(f"Its port must be {usual}, or one from {PORT_MIN} to {PORT_MAX}.")
    path = (found["path"] or "/") + (found["query"] or "")
    return WebhookUrl(scheme == "https", _host(found["host"].lower()), port, path)


def _host(text: str) -> str:
    try:
        if text.startswith("["):
            return str(IPv6Address(text[1:-1]))
        labels = text.split(".")
        # What ends in a number is an address, in one of many forms (WHATWG URL, 3.5): only the plain one.
        if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
            return str(IPv4Address(text))
    except ValueError as error:
        raise refused("Its address must be written as 192.0.2.1 or [2001:db8::1].") from error
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise refused("Its host is no name of a host.")
    return text


def refused(why: str) -> Error:
    """Return the error for a URL that cannot be an endpoint's."""
    return Error(
        Kind.INVALID, f"Invalid webhook URL. {why}", param="url", code="invalid_webhook_url"
    )

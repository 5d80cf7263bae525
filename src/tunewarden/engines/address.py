"""Where an engine listens."""

from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from tunewarden.engine_protocol import paths
from tunewarden.errors import Error, Kind


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens: a unix socket, or a host and port with a path prefix."""

    socket: str | None = None
    host: str = "engine"
    port: int = 80
    tls: bool = False
    prefix: str = paths.OPENAI

    @classmethod
    def of_url(cls, url: str) -> "Address":
        """Return the address for a base URL such as `http://127.0.0.1:8000/v1`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # an invalid port, or unbalanced brackets
            parts, port = urlsplit(""), None
        if (
            parts.scheme not in {"http", "https"}
            or not parts.hostname
            or parts.query
            or parts.username
        ):
            raise Error(
                Kind.INVALID,
                "An engine's URL looks like http://127.0.0.1:8000/v1, without user, password or query.",
                param="engine_url",
            )
        tls = parts.scheme == "https"
        port = port or (443 if tls else 80)
        return cls(host=parts.hostname, port=port, tls=tls, prefix=parts.path.rstrip("/"))

    @property
    def at_root(self) -> "Address":
        """The address without a path prefix: of the engine protocol's own routes."""
        return replace(self, prefix="")

    @property
    def is_open_to_readers(self) -> bool:
        """Whether requests cross a network without TLS."""
        if self.tls or self.socket is not None or self.host == "localhost":
            return False
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:  # another name
            return True

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

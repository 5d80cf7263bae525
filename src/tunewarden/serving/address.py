"""Where an engine listens."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from tunewarden.errors import Error, Kind


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens: a unix socket, or a host and port with a path prefix."""

    socket: str | None = None
    host: str = "engine"
    port: int = 80
    tls: bool = False
    prefix: str = "/v1"

    @classmethod
    def of_url(cls, url: str) -> "Address":
        """Return the address for a base URL such as `http://127.0.0.1:8000/v1`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # a port that is no number, a bracket without its other half
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
    def authority(self) -> str:
        """Return what stands in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

"""Addresses of a source: OpenAI's paths and header, or Azure's. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

from tunewarden.errors import Error, Kind

OPENAI = "https://api.openai.com/v1"
AZURE_ROOT = "/openai"
AZURE_VERSION = "2024-10-21"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Query = Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a source is. `deployments` names Azure's deployment of a model; without one, it has the model's name."""

    url: str
    is_secure: bool
    netloc: str
    root: str
    azure_version: str | None = None
    deployments: Mapping[str, str] = field(default_factory=dict)

    def headers(self, key: str) -> dict[str, str]:
        """Return the header with the key."""
        if self.azure_version is None:
            return {"authorization": f"Bearer {key}"}
        return {"api-key": key}

    def target(self, segments: Sequence[str], query: Query) -> str:
        """Return what the request line names; what is None in the query is left out."""
        chosen = {name: str(value) for name, value in query.items() if value is not None}
        if self.azure_version is not None:
            chosen["api-version"] = self.azure_version
        path = "".join(f"/{quote(segment, safe='')}" for segment in segments)
        return f"{self.root}{path}{'?' if chosen else ''}{urlencode(chosen)}"

    def chat(self, model: str) -> tuple[str, ...]:
        """Return the path of a model's chat completions."""
        if self.azure_version is None:
            return ("chat", "completions")
        return ("deployments", self.deployments.get(model, model), "chat", "completions")


def parse(
    url: str, *, azure_version: str | None = None, deployments: Mapping[str, str] | None = None
) -> Address:
    """Parse a URL. Raises Error(INVALID).

    Without a path it is `/v1`, on Azure `/openai`. A key travels unencrypted to this machine only.
    """
    given = url.rstrip("/")
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise _invalid(given) from error
    is_plain = not parts.query and not parts.fragment and "@" not in parts.netloc
    is_plain = is_plain and given.isascii() and given.isprintable() and " " not in given
    if not host or parts.scheme not in {"http", "https"} or not is_plain:
        raise _invalid(given)
    if parts.scheme == "http" and host not in LOOPBACK:
        raise Error(
            Kind.INVALID, f"{given} is not encrypted: the source's key would be sent unencrypted."
        )
    root = parts.path or ("/v1" if azure_version is None else AZURE_ROOT)
    is_secure = parts.scheme == "https"
    return Address(given, is_secure, parts.netloc, root, azure_version, deployments or {})


def _invalid(url: str) -> Error:
    # A user's name or password may stand there, which is not shown.
    shown = url if "@" not in url else "This"
    return Error(Kind.INVALID, f"{shown} is no address of a source, such as {OPENAI}.")

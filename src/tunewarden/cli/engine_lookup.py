"""Asks a remote base's engine for its model's name, and whether adapters can be pushed to it."""

import json
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import VERSION, LoadedBase, State, decoded, version_in
from tunewarden.engines.tls import ClientTls
from tunewarden.errors import Error, Kind

LIST_SECONDS = 10
LIST_BYTES_MAX = 16 * 1024 * 1024
KEY_IS_WRONG = frozenset({401, 403})
PROXY_ADVICE = (
    "If a proxy refuses that path of a server without tunewarden-vllm, let it answer 404."
)


def model_at(engine_url: str, name: str, key: str | None, advice: str, tls: ClientTls) -> str:
    """Return the model's name at the URL: `name`, or the only one there.

    Raises Error(INVALID), with `advice` if the server refuses the key.
    """
    try:
        listed = _get(f"{engine_url.rstrip('/')}/models", key, tls)
        served = [str(model["id"]) for model in json.loads(listed)["data"]]
    except HTTPError as error:
        why = advice if error.code in KEY_IS_WRONG else ""
        raise _refused(f"{engine_url}/models", error, why) from error
    except (URLError, OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise Error(
            Kind.UNAVAILABLE,
            f"No OpenAI-compatible server answers at {engine_url}/models.",
            param="engine_url",
        ) from error
    return _named(engine_url, name, served)


@dataclass(frozen=True, slots=True)
class PushedBase:
    """The base of an engine that adapters are pushed to, and the internal ids that the engine refuses."""

    base: LoadedBase
    tombstones: list[str]


def pushed_base_at(
    engine_url: str, name: str, key: str | None, advice: str, tls: ClientTls
) -> PushedBase | None:
    """Return the base of an engine that adapters are pushed to: `name`, or the only one there; None for any other server.

    Raises Error(INVALID), with `advice` if the server refuses the key: then nobody knows what it is;
    Error(MISCONFIGURED) for an engine of another version.
    """
    parts = urlsplit(engine_url)
    if parts.path.rstrip("/") != paths.OPENAI:
        return None  # behind a path prefix is another server
    asked = parts._replace(path=paths.STATE).geturl()
    try:
        body = _get(asked, key, tls)
        spoken, state = version_in(body), decoded(body, State)
    except HTTPError as error:
        if error.code in KEY_IS_WRONG:
            raise _refused(asked, error, f"{advice} {PROXY_ADVICE}") from error
        return None  # it has no such route
    except (OSError, HTTPException, ValueError):
        return None
    if spoken != VERSION:
        raise Error(
            Kind.MISCONFIGURED,
            f"The engine at {engine_url} speaks version {spoken} of the engine protocol, this server version {VERSION}."
            " Install the same release of tunewarden and tunewarden-vllm.",
            code="engine_version",
        )
    found = _named(engine_url, name, [base.name for base in state.bases])
    base = next(base for base in state.bases if base.name == found)
    return PushedBase(base, state.tombstones)


def _refused(asked: str, error: HTTPError, advice: str) -> Error:
    message = f"{asked} was answered with status {error.code}. {advice}".strip()
    return Error(Kind.INVALID, message, param="engine_url")


def _get(url: str, key: str | None, tls: ClientTls) -> bytes:
    """Return what a GET is answered. Raises OSError, HTTPException."""
    request = Request(url)  # noqa: S310  checked by Address
    if key is not None:
        # do not follow redirects
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    context = tls.context() if urlsplit(url).scheme == "https" else None
    with urlopen(request, timeout=LIST_SECONDS, context=context) as response:  # noqa: S310  checked by Address
        found: bytes = response.read(LIST_BYTES_MAX)
    return found


def _named(engine_url: str, name: str, served: list[str]) -> str:
    """Return `name`, or the only name that is served. Raises Error(INVALID)."""
    if name in served:
        return name
    if len(served) == 1:
        return served[0]
    raise Error(
        Kind.INVALID,
        f"The server at {engine_url} has no model '{name}'. It has: {', '.join(served) or 'none'}."
        " Name the base after one of them.",
        param="name",
    )

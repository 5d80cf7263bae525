"""Asks a remote base's engine for its model's name."""

import json
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tunewarden.errors import Error, Kind

LIST_SECONDS = 10
LIST_BYTES_MAX = 16 * 1024 * 1024


def model_at(engine_url: str, name: str, key: str | None, advice: str) -> str:
    """Return the model's name at the URL: `name`, or the only one there.

    Raises Error(INVALID), with `advice` if the server refuses the key.
    """
    request = Request(f"{engine_url.rstrip('/')}/models")  # noqa: S310  checked by Address
    if key is not None:
        # do not follow redirects
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with urlopen(request, timeout=LIST_SECONDS) as response:  # noqa: S310  checked by Address
            served = [
                str(model["id"]) for model in json.loads(response.read(LIST_BYTES_MAX))["data"]
            ]
    except HTTPError as error:
        why = advice if error.code in {401, 403} else ""
        raise Error(
            Kind.INVALID,
            f"{engine_url}/models was answered with status {error.code}. {why}".strip(),
            param="engine_url",
        ) from error
    except (URLError, OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise Error(
            Kind.UNAVAILABLE,
            f"No OpenAI-compatible server answers at {engine_url}/models.",
            param="engine_url",
        ) from error
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

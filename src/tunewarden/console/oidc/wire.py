"""One question to the identity provider, and its answer in JSON. It blocks: call it in a thread.

Bounded in bytes, and in the seconds of each step; it follows no redirect, and asks over TLS but on loopback.
"""

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from tunewarden.console.guard import LOOPBACK
from tunewarden.errors import Error, Kind

STEP_SECONDS = 5.0
BYTES_MAX = 512 * 1024
PIECES_MAX = 256
PIECE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """How this server says who it is; without a secret it only names itself."""

    client_id: str
    secret: str | None
    by_header: bool  # HTTP Basic, else in the form


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: what was configured or discovered is asked, nothing else."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request to go on with, so that the answer is an error."""


_opener = urllib.request.build_opener(NoRedirects)


def get(address: str, *, bearer: str | None = None) -> dict[str, Any]:
    """Return a document. Raises Error(UNAVAILABLE), which names no token and quotes nothing that the provider wrote."""
    headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
    return _answer(urllib.request.Request(_checked(address), headers=_with(headers)))  # noqa: S310  checked


def post(address: str, fields: Mapping[str, str], login: Login) -> dict[str, Any]:
    """Send a form, and return the answer. Raises Error(UNAUTHENTICATED) if the provider refuses it, and as `get`."""
    sent, headers = dict(fields), {"content-type": "application/x-www-form-urlencoded"}
    if login.secret is not None and login.by_header:
        # RFC 6749 §2.3.1: encoded as in a form first.
        pair = f"{quote_plus(login.client_id)}:{quote_plus(login.secret)}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        sent["client_id"] = login.client_id
        if login.secret is not None:
            sent["client_secret"] = login.secret
    body = urlencode(sent).encode()
    return _answer(urllib.request.Request(_checked(address), body, _with(headers)))  # noqa: S310  checked


def is_safe(address: str) -> bool:
    """Return whether an address may be asked, and browsers led there: over TLS, or on this machine."""
    try:
        parts = urlsplit(address)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    except ValueError:
        return False
    is_plain = address.isascii() and address.isprintable() and " " not in address
    is_local = parts.scheme == "http" and host in LOOPBACK
    return bool(is_plain and host and "@" not in parts.netloc) and (
        parts.scheme == "https" or is_local
    )


def _checked(address: str) -> str:
    if not is_safe(address):
        raise _failed("names an address that does not begin with https://")
    return address


def _with(headers: Mapping[str, str]) -> dict[str, str]:
    return {"accept": "application/json", "accept-encoding": "identity", **headers}


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    try:
        with _opener.open(request, timeout=STEP_SECONDS) as response:
            found = json.loads(_read(response))
    except urllib.error.HTTPError as error:
        error.close()
        if request.data is not None and error.code in {400, 401, 403}:
            raise _refused(error.code) from None
        raise _failed(f"answered with status {error.code}") from None
    except TimeoutError:
        raise _failed("did not answer in time") from None
    except (OSError, http.client.HTTPException):
        raise _failed("could not be reached, or its certificate is not valid") from None
    except (ValueError, RecursionError):
        raise _failed("did not answer in JSON") from None
    if not isinstance(found, dict):
        raise _failed("did not answer with an object in JSON")
    return found


def _read(response: http.client.HTTPResponse) -> bytes:
    """Return a body. In a bounded number of pieces: one that comes byte by byte would take for ever."""
    pieces: list[bytes] = []
    for _ in range(PIECES_MAX):
        piece = response.read1(PIECE_BYTES)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        if sum(map(len, pieces)) > BYTES_MAX:
            break
    raise _failed("answered with too much")


def _failed(what: str) -> Error:
    said = (
        f"The identity provider {what}. Try again; if it stays so, the operator must look at it. Until then an API key or"
        " a link of `tunewarden console link` signs in."
    )
    return Error(Kind.UNAVAILABLE, said, code="sso_unavailable")


def _refused(status: int) -> Error:
    said = (
        f"The identity provider refused this sign-in (status {status}): it began too long ago, or was used already."
        " Begin anew. If that does not help, the operator must look at the settings 'sso_client_id' and"
        " 'sso_client_secret_file'."
    )
    return Error(Kind.UNAUTHENTICATED, said, code="sso_refused")

"""Request parameters for handlers: the caller, decoded path segments, the query, the retry count, the body."""

import re
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from fastapi import Depends, Header, Path
from pydantic import AfterValidator, BeforeValidator
from starlette.requests import Request

from tunewarden.api.forms import announced_bytes
from tunewarden.api.operations import Operations
from tunewarden.api.services import Services
from tunewarden.artifacts.strict_json import Malformed, is_text, parse_object, shown
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import Caller

T = TypeVar("T", bound=msgspec.Struct)
OBJECT_BYTES_MAX = 1024 * 1024
# Enough for the part ids of the largest upload.
OBJECT_VALUES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Context:
    """An authenticated request: the caller, and the worker's services."""

    caller: Caller
    services: Services

    @property
    def operations(self) -> Operations:
        """The operations of the API."""
        return self.services.operations


@dataclass(frozen=True, slots=True)
class Administration:
    """An authenticated request under /v1/organization: the administrator, and the worker's services."""

    administrator: Administrator
    services: Services

    @property
    def operations(self) -> Operations:
        """The operations of the API."""
        return self.services.operations


def services_of(request: Request) -> Services:
    """Return the worker's services, for a route that needs no key."""
    services = request.app.state.services
    assert isinstance(services, Services), "set when the application is created"
    return services


# Async, because FastAPI runs plain functions in the thread pool. One dependency instead of two: each costs
# as much as reading a row.


async def _context(request: Request) -> Context:
    caller = request.scope["state"]["caller"]
    if not isinstance(caller, Caller):
        raise TypeError("a route that is not public was reached without a caller")
    return Context(caller, services_of(request))


async def _administration(request: Request) -> Administration:
    caller = request.scope["state"]["caller"]
    if not isinstance(caller, Administrator):
        raise TypeError("a route of administration was reached without an administrator")
    return Administration(caller, services_of(request))


def _count(header: str | int) -> int:
    # The lowest FastAPI that is allowed validates the default too.
    return int(header) if re.fullmatch("[0-9]{1,4}", str(header)) else 0


# The SDK's retry count (x-stainless-retry-count).
RetryCount = Annotated[int, Header(alias="x-stainless-retry-count"), BeforeValidator(_count)]


async def _attempt(
    *,
    retry_count: RetryCount = 0,
    idempotency_key: Annotated[str | None, Header()] = None,
    if_match: Annotated[str | None, Header()] = None,
    force: bool = False,
) -> Attempt:
    return Attempt(
        retry_count=retry_count,
        idempotency_key=idempotency_key,
        force=force,
        if_match=if_match,
    )


def _decoded(segment: str) -> str:
    try:
        # No id contains NUL, and PostgreSQL rejects text that does: replace it with U+FFFD.
        return unquote(segment, errors="strict").replace("\0", "\N{REPLACEMENT CHARACTER}")
    except UnicodeDecodeError as error:
        raise Error(Kind.INVALID, "The path is not UTF-8.", param="model") from error


InContext = Annotated[Context, Depends(_context)]
InAdministration = Annotated[Administration, Depends(_administration)]
Attempting = Annotated[Attempt, Depends(_attempt)]
Segment = Annotated[str, Path(), AfterValidator(_decoded)]


def check_query(query: bytes) -> None:
    """Check that every parameter is UTF-8 without NUL. Raises Error(INVALID), naming the first that is not."""
    if b"%" not in query and query.isascii():
        return
    # What is no UTF-8 becomes surrogates, which are no text.
    text = query.decode("latin-1")
    for name, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
        if not (is_text(name) and is_text(value)):
            raise Error(
                Kind.INVALID,
                f"The query parameter {shown(name)} must be UTF-8 without NUL.",
                param=shown(name)[1:-1],
            )


async def read_object(request: Request) -> dict[str, object]:
    """Parse a request's body as a JSON object. Raises Error(INVALID), and what `read_body` raises."""
    body = await read_body(request, OBJECT_BYTES_MAX)
    try:
        return parse_object(body, max_values=OBJECT_VALUES_MAX)
    except Malformed as error:
        raise Error(Kind.INVALID, f"The body {error}.", param=error.key) from error


async def read_as(request: Request, kind: type[T]) -> T:
    """Decode a JSON body as `kind`. Raises Error(INVALID), Error(TOO_LARGE)."""
    body = await read_object(request)
    try:
        return msgspec.convert(body, type=kind)
    except msgspec.ValidationError as error:
        raise Error(Kind.INVALID, f"{error}.", param=_param(str(error))) from error


def _param(message: str) -> str | None:
    """Return the field that msgspec names at the end of a message, such as "- at `$.bytes`"."""
    found = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else ""
    return found or None


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return a request's body. Raises Error(TOO_LARGE), and Error(INVALID) if the client disconnected."""
    if announced_bytes(request) > bytes_max:
        raise _too_large(bytes_max)
    receive = request.receive
    message = await receive()
    if message["type"] == "http.request" and not message["more_body"]:
        body: bytes = message["body"]
    else:
        parts = []
        size = 0
        while message["type"] == "http.request":
            parts.append(message["body"])
            size += len(message["body"])
            if size > bytes_max or not message["more_body"]:
                break
            message = await receive()
        else:
            raise Error(Kind.INVALID, "The request ended before its body was complete.")
        body = b"".join(parts)
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    return body


def _too_large(bytes_max: int) -> Error:
    return Error(Kind.TOO_LARGE, f"Request body too large (limit {bytes_max} bytes).")

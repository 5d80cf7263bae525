"""What handlers read from a request: a path segment decoded once, and who is calling."""

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Path
from pydantic import AfterValidator
from starlette.requests import Request

from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller


def _decoded(segment: str) -> str:
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise Error(Kind.INVALID, "The path is not UTF-8.", param="model") from error


async def _caller(request: Request) -> Caller:
    # Not a plain function: FastAPI would have a thread run it, for each request.
    caller = request.scope["state"]["caller"]
    if not isinstance(caller, Caller):
        raise TypeError("a route that is not public was reached without a caller")
    return caller


Segment = Annotated[str, Path(), AfterValidator(_decoded)]
Calling = Annotated[Caller, Depends(_caller)]

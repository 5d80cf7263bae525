"""`/openapi.json` and `/docs`: the API's description. `docs_are_open` serves both without a key."""

from functools import lru_cache
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import services_of

PATHS = frozenset({"/openapi.json", "/docs"})

routes = APIRouter()


@routes.get("/openapi.json")
def retrieve_openapi(request: Request) -> JsonAnswer:
    """Return this API as an OpenAPI 3.1 document."""
    return JsonAnswer(_document(request))


@routes.get("/docs")
def retrieve_docs(request: Request) -> Response:
    """Return this API's reference as one HTML page without external assets."""
    from tunewarden.api import docs_page  # noqa: PLC0415  few workers are ever asked for it

    return Response(
        docs_page.page(_document(request)),
        media_type="text/html",
        headers={"content-security-policy": docs_page.POLICY},
    )


def _document(request: Request) -> dict[str, Any]:
    return _document_of(request.app, services_of(request).operations.config.docs_are_open)


@lru_cache(maxsize=1)
def _document_of(application: FastAPI, docs_are_open: bool) -> dict[str, Any]:  # noqa: FBT001  a key
    from tunewarden.api import openapi  # noqa: PLC0415  it costs a start 50 ms

    return openapi.document(application.routes, docs_are_open=docs_are_open)

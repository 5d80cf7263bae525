"""The routes of one worker, except those of `inference.ROUTES`, and what answers where there is none."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from tunewarden import problems
from tunewarden.api import (
    aliases,
    bulk_deletions,
    console_links,
    deletion_cases,
    deletions,
    docs,
    expired_keys,
    files,
    fine_tuning,
    head_requests,
    health,
    holds,
    invite_page,
    lineage,
    log,
    models,
    refused_requests,
    responses,
    retention,
    start_page,
    uploads,
    webhooks,
)
from tunewarden.api.administration import not_offered, routers
from tunewarden.api.services import Services
from tunewarden.errors import Error, Kind
from tunewarden.gateway.inference import ROUTES
from tunewarden.problems import Wire

PUBLIC = re.compile(
    r"/|/healthz?|/readyz|/\.well-known/tunewarden-log-key|/log/checkpoint|/log/hand-overs|/log/tile/[0-9a-z/.]+"
    r"|/invites/[A-Za-z0-9]+"
)
# Every route except `inference.ROUTES`.
ROOMS = (
    start_page,
    health,
    models,
    lineage,
    files,
    uploads,
    deletions,
    bulk_deletions,
    deletion_cases,
    retention,
    holds,
    aliases,
    webhooks,
    fine_tuning,
    responses,
    log,
    docs,
    invite_page,
    console_links,
)
ROUTERS = (*(room.routes for room in ROOMS), *routers.ROUTERS)


def application(services: Services) -> FastAPI:
    """Return the application of all routes."""
    built = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    built.state.services = services
    built.add_exception_handler(Error, _on_error)
    built.add_exception_handler(HTTPException, _NoSuchRoute())
    built.add_exception_handler(RequestValidationError, _on_invalid)
    built.add_exception_handler(Exception, _on_error)
    for router in ROUTERS:
        built.include_router(router)
    return built


def operation_of(scope: Scope) -> str:
    """Return the method and the route of a request that was not routed yet; without a route its method alone."""
    path = scope["path"]
    every = (route for router in ROUTERS for route in router.routes if isinstance(route, Route))
    found = next((route.path for route in every if route.path_regex.fullmatch(path)), "")
    return f"{scope['method']} {found}".rstrip()


async def _on_error(request: Request, error: Exception) -> Response:
    """Answer with the error. Starlette re-raises anything but Error, and `Server` logs it with its request id."""
    if isinstance(error, Error):
        database = request.app.state.services.operations.database
        await expired_keys.note(database, error)
        await refused_requests.record(database, request.scope, error)
    return _answer(problems.wire(error))


def _answer(wire: Wire) -> Response:
    response = Response(wire.body, wire.status)
    response.raw_headers = wire.headers
    return response


class _NoSuchRoute:
    """Answers 404, or 405 with all methods of the path (Starlette lists those of one route)."""

    def __init__(self) -> None:
        self._methods = [(re.compile(re.escape(path)), {"POST"}) for path in ROUTES]
        for router in ROUTERS:
            for route in router.routes:
                assert isinstance(route, Route), "nothing is mounted"
                self._methods.append((route.path_regex, route.methods or set()))

    async def __call__(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code not in {404, 405}:
            raise error
        path = request.scope["path"]
        found = {
            m for pattern, methods in self._methods if pattern.fullmatch(path) for m in methods
        }
        if "GET" in found:
            found.add("HEAD")
        where = f"{head_requests.method(request.scope)} {path}"
        if not found:
            unknown = Error(Kind.NOT_FOUND, f"Invalid URL ({where})")
            return _answer(problems.wire(not_offered.refusal(path) or unknown))
        allowed = ", ".join(sorted(found))
        message = f"Not allowed to {where}. Allowed: {allowed}."
        wire = problems.wire(Error(Kind.METHOD_NOT_ALLOWED, message))
        wire.headers.append((b"allow", allowed.encode()))
        return _answer(wire)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = dict(error.errors()[0])
    param = str(first["loc"][-1])
    message = f"Invalid value for '{param}': {first['msg']}."
    return _answer(problems.wire(Error(Kind.INVALID, message, param=param)))

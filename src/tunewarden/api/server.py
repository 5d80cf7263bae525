"""The ASGI application of one worker: authentication before the router, then FastAPI.

Inference routes bypass it: `gateway/protocol.py` turns each request into an `Exchange`.

Default deny: every path outside PUBLIC needs a key, whether or not a route exists, so that a route
missing from the policy is never public. Routing uses the raw path, so that an id keeps its
`%2F`; the handler decodes each segment once.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterable

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tunewarden import problems
from tunewarden.api import (
    docs,
    expired_keys,
    flushing,
    head_requests,
    models,
    refused_requests,
    routes,
)
from tunewarden.api.administration import routers
from tunewarden.api.operations import Operations
from tunewarden.api.parameters import check_query
from tunewarden.api.refused_requests import Tried
from tunewarden.api.response_headers import OTHER, Headed, answer
from tunewarden.api.routes import PUBLIC
from tunewarden.api.services import Services
from tunewarden.api.taken_parameters import TakenParameters
from tunewarden.errors import Error, Kind
from tunewarden.gateway import access_log, cors
from tunewarden.gateway.access_log import Access
from tunewarden.gateway.connection import EXTENSION
from tunewarden.gateway.connections import Connections
from tunewarden.gateway.cors import Cors
from tunewarden.gateway.flushes import Flushes
from tunewarden.gateway.inference import Inference
from tunewarden.gateway.observer import STATUS_OF_NONE, Observer
from tunewarden.gateway.rate_limiting import RateLimiter
from tunewarden.identity import admin_keys, key_format, keys
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.key_format import Presented
from tunewarden.identity.policy import Caller
from tunewarden.metrics import recording
from tunewarden.problems import Wire
from tunewarden.settings import origins

# Slashes of a path that names one model and nothing below it.
NAMED_SLASHES = 3
# The pages for people, which have sessions of their own: no key of this API opens one, and none opens this API.
CONSOLE = "/console"
# Public, except for entries of format 1, which need a key.
LOG_ENTRIES = "/log/tile/entries/"
CLIENT_REQUEST_ID_LENGTH_MAX = 512
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

logger = logging.getLogger(__name__)


class Server:
    """The ASGI application of one worker."""

    def __init__(
        self, operations: Operations, new_console: Callable[[Services], ASGIApp] | None = None
    ) -> None:
        self._operations = operations
        self.connections = Connections(operations.config)
        self.flushes = Flushes()
        allowed = origins(operations.config.cors_origins)
        self.cors = Cors(allowed) if allowed else None
        self.inference = Inference(
            operations.admissions,
            operations.gateway,
            operations.usage,
            Observer.of(operations.config),
            RateLimiter(operations.buckets),
            operations.config.body_bytes_max,
        )
        services = Services.of(operations)
        self.readiness = services.readiness
        self._routes = routes.application(services)
        self._taken = TakenParameters(routes.ROUTERS)
        self._console = None if new_console is None else new_console(services)

    @property
    def is_draining(self) -> bool:
        """Whether each response closes its connection, because the worker is draining."""
        return self.readiness.is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every error has OpenAI's shape and a request id."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        reply = Headed(send, is_last=self.is_draining)
        try:
            await self._reply(scope, receive, reply)
        finally:
            self._count(scope, reply)

    async def _reply(self, scope: Scope, receive: Receive, reply: Headed) -> None:
        if self.cors is not None and not _is_console(scope):
            reply.cors = self.cors.headers(scope["headers"])
            if cors.is_preflight(scope["method"], scope["headers"]):
                # Before authentication: a browser sends no key with it.
                await answer(reply, Wire(204, cors.permission(scope["headers"]), b""))
                return
        try:
            # The raw path: the handler decodes each segment once (research: contract, 1.2).
            scope["path"] = scope["raw_path"].decode("latin-1")
            await self._answer(scope, receive, reply)
        except Error as error:
            await self._refuse(reply, error)
        except Exception as error:
            # Outer boundary: anything but Error is a bug. Its text goes to the log only.
            logger.exception("request %s failed", reply.request_id)
            if not reply.is_started:
                await answer(reply, problems.wire(error))

    def presented(self, headers: Iterable[tuple[bytes, bytes]]) -> Presented:
        """Return the request's API key. Raises Error(UNAUTHENTICATED), Error(INVALID)."""
        authorization = b""
        for name, value in headers:
            if name == b"authorization":
                authorization = value
            elif name == b"x-client-request-id":
                _check_client_request_id(value)
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Error(Kind.UNAUTHENTICATED, "Missing bearer authentication in header")
        return key_format.present(key.decode("ascii", "replace").strip())

    async def _answer(self, scope: Scope, receive: Receive, reply: Headed) -> None:
        path: str = scope["path"]
        if self._console is not None and _is_console(scope):
            scope["state"] = {"request_id": reply.request_id}
            await self._route(scope, receive, reply, self._console)
            return
        if self._is_public(path) and not _is_named(scope):
            scope["state"] = {"request_id": reply.request_id}
            await self._route(scope, receive, reply, self._routes)
            return
        caller: Caller | Administrator
        if path.startswith(routers.PREFIXES):
            caller = await self._administrator(scope, reply)
        else:
            caller = await self._caller(scope, reply)
        self._operations.usage.note_key(caller.organization_id, caller.key_id)
        reply.organization = caller.organization_name.encode()
        scope["state"] = {"caller": caller, "request_id": reply.request_id}
        check_query(scope["query_string"])
        if path.count("/") > NAMED_SLASHES:
            scope["path"] = models.with_one_segment(self._operations.database, path)
        self._taken.check(scope)
        await self._route(scope, receive, reply, self._routes)

    async def _administrator(self, scope: Scope, reply: Headed) -> Administrator:
        """Return the caller of a request that only an admin key may send; a refused one is in the audit log."""
        database, request_id = self._operations.database, reply.request_id
        presented = None
        try:
            presented = self.presented(scope["headers"])
            if presented.is_admin:
                return admin_keys.look_up(database, presented, request_id)
            keys.look_up(database, presented, request_id)
            raise admin_keys.api_key_here()
        except Error as refused:
            tried = Tried(presented, request_id, routes.operation_of(scope))
            await refused_requests.record_wrong_key(database, refused, tried, even_unknown=True)
            raise

    async def _caller(self, scope: Scope, reply: Headed) -> Caller:
        """Return the caller of a request; a revoked or expired key, and an admin key, are in the audit log."""
        database, request_id = self._operations.database, reply.request_id
        presented = self.presented(scope["headers"])
        try:
            return keys.look_up(database, presented, request_id)
        except Error as refused:
            tried = Tried(presented, request_id, routes.operation_of(scope))
            # Not a key that never was: anybody may send those.
            await refused_requests.record_wrong_key(database, refused, tried, even_unknown=False)
            raise

    async def _route(self, scope: Scope, receive: Receive, reply: Headed, routes: ASGIApp) -> None:
        routed = head_requests.as_get(scope)
        try:
            await routes(routed, receive, reply.send)
        finally:
            found = routed.get("route")
            reply.route = found.path if isinstance(found, Route) else OTHER

    def _count(self, scope: Scope, reply: Headed) -> None:
        """Count a request, and log it if that is wanted."""
        method = scope["method"] if scope["method"] in METHODS else OTHER
        status, seconds = reply.status or STATUS_OF_NONE, time.perf_counter() - reply.began
        recording.http_ended(method, reply.route, status, seconds)
        if self._operations.config.access_log:
            client = scope["extensions"][EXTENSION]
            access_log.write(
                Access(
                    request_id=reply.request_id,
                    method=method,
                    route=reply.route,
                    status=status,
                    error="",
                    seconds=seconds,
                    sent_bytes=client.written_since_last(),
                    caller=scope.get("state", {}).get("caller"),
                )
            )

    def _is_public(self, path: str) -> bool:
        is_open = self._operations.config.docs_are_open and path in docs.PATHS
        return is_open or PUBLIC.fullmatch(path) is not None

    async def _refuse(self, reply: Headed, error: Error) -> None:
        if reply.is_started:
            logger.error(
                "request %s failed after its answer began: %s", reply.request_id, error.kind
            )
            return
        await expired_keys.note(self._operations.database, error)
        await answer(reply, problems.wire(error))

    async def _live(self, receive: Receive, send: Send) -> None:
        """ASGI lifespan: flush usage and gauges each second, and once more at shutdown."""
        await receive()
        # Objects made at start-up live as long as the process: keep the garbage collector from scanning them.
        gc.freeze()
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        flush = flushing.flush_each_second(self._operations, self.connections, stopping)
        flushed = loop.create_task(flush)
        watching = loop.create_task(self.connections.watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watching.cancel()
        await asyncio.to_thread(self.inference.observer.close)
        stopping.set()
        await flushed
        await send({"type": "lifespan.shutdown.complete"})


def _is_named(scope: Scope) -> bool:
    """Return whether a request to a public route carries a key that matters there."""
    has_key = any(name == b"authorization" for name, _ in scope["headers"])
    return has_key and scope["path"].startswith(LOG_ENTRIES)


def _is_console(scope: Scope) -> bool:
    path: str = scope["raw_path"].decode("latin-1")
    return path == CONSOLE or path.startswith(f"{CONSOLE}/")


def _check_client_request_id(value: bytes) -> None:
    if len(value) > CLIENT_REQUEST_ID_LENGTH_MAX or not value.isascii():
        raise Error(
            Kind.INVALID,
            "X-Client-Request-Id must be at most 512 ASCII characters.",
            param="X-Client-Request-Id",
        )

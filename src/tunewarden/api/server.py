"""The application of one worker: authentication outside the router, then FastAPI.

The inference routes come another way: `protocol` makes an `inference.Exchange` of each request.

Default deny: whatever is not in PUBLIC needs a key, whether or not a route exists, so that a route
that is forgotten in the policy is never open. Routing is on the raw path, so that an id keeps its
`%2F`; each segment is decoded once, by the handler that uses it.
"""

import asyncio
import gc
import logging
import re
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from tunewarden.api import deletions, files, fine_tuning, health, log, models, problems, uploads
from tunewarden.api.clients import Clients
from tunewarden.api.inference import OPENAI_VERSION, ROUTES, Exchange, Inference
from tunewarden.api.operations import Operations
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.keys import Presented
from tunewarden.ids import Prefix, mint

PUBLIC = re.compile(
    r"/healthz|/readyz|/\.well-known/tunewarden-log-key|/log/checkpoint|/log/tile/[0-9a-z/.]+"
)
CLIENT_REQUEST_ID_LENGTH_MAX = 512
FLUSH_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Server:
    """The whole of one worker's HTTP."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self.clients = Clients(operations.config)
        self.inference = Inference(
            operations.admissions,
            operations.gateway,
            operations.usage,
            operations.config.body_bytes_max,
        )
        self._routes = _routes(operations)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong has OpenAI's shape and a request id."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        reply = _Headed(send)
        try:
            # The raw path: a segment is decoded once, by whoever uses it (research: contract, 1.2).
            scope["path"] = scope["raw_path"].decode("latin-1")
            await self._answer(scope, receive, reply)
        except Error as error:
            await self._refuse(reply, error)
        except Exception:
            # A boundary: anything but Error is a bug. Its text is for the log only.
            logger.exception("request %s failed", reply.request_id)
            if not reply.is_started:
                await _send(reply, 500, problems.render(problems.INTERNAL, "server_error"), {})

    def advance(self, exchange: Exchange) -> None:
        """Let an inference request do what it can do by now; whatever goes wrong is answered."""
        try:
            exchange.advance()
        except Error as error:
            exchange.refuse(error)
        except Exception:
            # A boundary, as above.
            logger.exception("request %s failed", exchange.request_id)
            exchange.answer(500, problems.render(problems.INTERNAL, "server_error"))

    def presented(self, headers: Iterable[tuple[bytes, bytes]]) -> Presented:
        """Return the key that comes with a request. Raises Error(UNAUTHENTICATED), Error(INVALID)."""
        authorization = b""
        for name, value in headers:
            if name == b"authorization":
                authorization = value
            elif name == b"x-client-request-id":
                _check_client_request_id(value)
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Error(Kind.UNAUTHENTICATED, "Missing bearer authentication in header")
        return keys.present(key.decode("ascii", "replace").strip())

    async def _answer(self, scope: Scope, receive: Receive, reply: "_Headed") -> None:
        path: str = scope["path"]
        if PUBLIC.fullmatch(path):
            await self._routes(scope, receive, reply.send)
            return
        presented = self.presented(scope["headers"])
        caller = keys.look_up(self._operations.database, presented, reply.request_id)
        reply.organization = caller.organization_name.encode()
        scope["state"] = {"caller": caller}
        await self._routes(scope, receive, reply.send)

    async def _refuse(self, reply: "_Headed", error: Error) -> None:
        if reply.is_started:
            logger.error(
                "request %s failed after its answer began: %s", reply.request_id, error.kind
            )
            return
        headers = dict(problems.headers_of(error))
        await _send(reply, problems.status_of(error), problems.body_of(error), headers)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The worker's life: usage is written each second, and once more at the end."""
        await receive()
        # What there is by now stays: the collector need not look through it again and again.
        gc.freeze()
        loop = asyncio.get_running_loop()
        flushing = loop.create_task(self._flush_usage())
        watching = loop.create_task(self.clients.watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watching.cancel()
        flushing.cancel()
        self._operations.usage.flush()
        await send({"type": "lifespan.shutdown.complete"})

    async def _flush_usage(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            usage = self._operations.usage
            taken = usage.take()
            try:
                # In a thread: the database may be busy for seconds, and the loop has models to let go of.
                await asyncio.to_thread(usage.write, taken)
            except Error as error:
                usage.put_back(taken)
                logger.warning("usage could not be written and is kept: %s", error.message)
            except Exception:
                # A boundary: what could not be written now never can be, and the next counts go on.
                logger.exception("usage could not be written and is lost")


class _Headed:
    """Sends with the headers that every answer carries."""

    __slots__ = ("_began", "_send", "is_started", "organization", "request_id")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._began = asyncio.get_running_loop().time()
        self.request_id = mint(Prefix.REQUEST)
        self.organization = b""
        self.is_started = False

    async def send(self, message: Message) -> None:
        """Pass a message on; the first one gets the headers."""
        if message["type"] == "http.response.start":
            self.is_started = True
            elapsed_ms = (asyncio.get_running_loop().time() - self._began) * 1000
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.request_id.encode()),
                (b"openai-version", OPENAI_VERSION),
                (b"openai-processing-ms", b"%d" % elapsed_ms),
                (b"x-content-type-options", b"nosniff"),
            ]
            if self.organization:
                message["headers"].append((b"openai-organization", self.organization))
        await self._send(message)


async def _send(reply: _Headed, status: int, body: bytes, headers: dict[str, str]) -> None:
    lines = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    lines += [(name.encode(), value.encode()) for name, value in headers.items()]
    await reply.send({"type": "http.response.start", "status": status, "headers": lines})
    await reply.send({"type": "http.response.body", "body": body, "more_body": False})


def _routes(operations: Operations) -> FastAPI:
    application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    application.add_exception_handler(Error, _on_error)
    application.add_exception_handler(HTTPException, _NoSuchRoute(routers(operations)))
    application.add_exception_handler(RequestValidationError, _on_invalid)
    application.add_exception_handler(Exception, _on_bug)
    for router in routers(operations):
        application.include_router(router)
    return application


def routers(operations: Operations) -> tuple[APIRouter, ...]:
    """Return every route but those of `inference.ROUTES`."""
    return (
        health.router(operations),
        models.router(operations),
        files.router(operations),
        uploads.router(operations),
        deletions.router(operations),
        fine_tuning.router(operations),
        log.router(operations),
    )


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, Error)
    return Response(
        problems.body_of(error),
        status_code=problems.status_of(error),
        headers=dict(problems.headers_of(error)),
        media_type="application/json",
    )


class _NoSuchRoute:
    """Answers 405 with every method that the path has (Starlette names one route's), or 404."""

    def __init__(self, routed: Iterable[APIRouter]) -> None:
        self._methods = [(re.compile(re.escape(path)), {"POST"}) for path in ROUTES]
        for router in routed:
            for route in router.routes:
                assert isinstance(route, Route), "nothing is mounted"
                self._methods.append((route.path_regex, route.methods or set()))

    async def __call__(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        status, headers, message = error.status_code, error.headers, str(error.detail)
        if status in {404, 405}:
            found = {
                m for pattern, methods in self._methods if pattern.fullmatch(path) for m in methods
            }
            allowed = ", ".join(sorted(found))
            where = f"{request.method} {path}"
            if allowed:
                status, headers = 405, {"allow": allowed}
                message = f"Not allowed to {where}. Allowed: {allowed}."
            else:
                status, headers, message = 404, None, f"Invalid URL ({where})"
        return Response(
            problems.render(message, "invalid_request_error"),
            status_code=status,
            headers=headers,
            media_type="application/json",
        )


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = dict(error.errors()[0])
    param = str(first["loc"][-1])
    message = f"Invalid value for '{param}': {first['msg']}."
    return await _on_error(_, Error(Kind.INVALID, message, param=param))


async def _on_bug(_: Request, error: Exception) -> Response:
    """Answer only: Starlette raises the exception again, and Server logs it with its request id."""
    return Response(
        problems.render(problems.INTERNAL, "server_error"),
        status_code=500,
        media_type="application/json",
    )


def _check_client_request_id(value: bytes) -> None:
    if len(value) > CLIENT_REQUEST_ID_LENGTH_MAX or not value.isascii():
        raise Error(
            Kind.INVALID,
            "X-Client-Request-Id may have 512 ASCII characters.",
            param="X-Client-Request-Id",
        )

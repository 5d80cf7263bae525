"""The inference routes: a raw ASGI path, because here every microsecond counts.

Admission under the guard is on every request; the model's state is read again before each chunk
leaves (I2). A request that is cut ends with an error, and nothing of the model's output that still
waits in our buffers leaves.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tunewarden.api import problems
from tunewarden.api.protocol import EXTENSION, Client
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry.usage import UsageCounter
from tunewarden.serving import admission
from tunewarden.serving.admission import Admissions, Serving, Target
from tunewarden.serving.gateway import ANSWER_BYTES_MAX, Gateway
from tunewarden.serving.rewriting import InferenceRequest, Renaming, StreamRewriter, usage_of
from tunewarden.serving.upstream import Answer, unavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Path -> whether its streams carry usage only if asked (`stream_options`).
ROUTES = {
    "/v1/chat/completions": True,
    "/v1/completions": True,
    "/v1/embeddings": False,
    "/v1/responses": False,
}
FLUSH_POLL_SECONDS = 0.005


class Inference:
    """Serves one request at a time from many tasks. One a worker."""

    def __init__(
        self, admissions: Admissions, gateway: Gateway, usage: UsageCounter, body_bytes_max: int
    ) -> None:
        self._admissions = admissions
        self._gateway = gateway
        self._usage = usage
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        """Answer a POST on one of ROUTES. Raises Error before anything was sent."""
        path: str = scope["path"]
        client: Client = scope["extensions"][EXTENSION]
        request = InferenceRequest.parse(await read_body(receive, self._body_bytes_max))
        target = self._admissions.find(caller, request.model)
        reply = _Reply(send, client)
        task = asyncio.current_task()
        assert task is not None, "an ASGI application runs in a task"
        client.on_lost = task.cancel
        try:
            with self._admissions.admitted(target, task.cancel) as serving:
                try:
                    tokens = await self._serve(request, target, path, reply=reply, serving=serving)
                    if tokens is not None:
                        self._usage.add(caller.organization_id, target.public_id, *tokens)
                    if serving is None or not serving.is_cut:
                        await reply.flushed()
                except asyncio.CancelledError:
                    if serving is None or not serving.is_cut or client.is_lost:
                        raise
                    # Inside the guard: what waits unsent is dropped before the deletion goes on.
                    task.uncancel()
                    await reply.end_cut()
        except asyncio.CancelledError:
            if not client.is_lost:
                raise
        finally:
            if client.on_lost == task.cancel:  # and not the next request's on this connection
                client.on_lost = None

    async def _serve(
        self,
        request: InferenceRequest,
        target: Target,
        path: str,
        *,
        reply: "_Reply",
        serving: Serving | None,
    ) -> tuple[int, int] | None:
        """Send the answer; return the tokens in and out, None if it did not come to its end."""
        body = request.for_engine(target.engine_model, ask_usage=ROUTES[path])
        answer = await self._gateway.send(target, path.removeprefix("/v1"), body)
        renaming = Renaming(target.engine_model, target.public_id)
        try:
            if answer.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                rewriter = StreamRewriter(renaming, hides_usage=not request.wants_usage)
                return await self._stream(answer, rewriter, reply, serving)
            whole = await answer.read(ANSWER_BYTES_MAX)
            if not self._admissions.may_go_on(serving):
                await reply.end_cut()
                return None
            await reply.whole(answer, renaming.apply(whole))
            return usage_of(whole).counted
        except ConnectionError as error:
            if not self._admissions.may_go_on(serving):
                await reply.end_cut()
            elif reply.is_started:
                await reply.end_broken()
            else:
                raise unavailable() from error
            return None
        finally:
            answer.abort()

    async def _stream(
        self, answer: Answer, rewriter: StreamRewriter, reply: "_Reply", serving: Serving | None
    ) -> tuple[int, int] | None:
        await reply.start(answer)
        async for piece in answer.pieces():
            events = rewriter.feed(piece)
            if not events:
                continue
            if not self._admissions.may_go_on(serving):
                await reply.end_cut()
                return None
            await reply.more(events)
        rest = rewriter.rest()
        if rest and not self._admissions.may_go_on(serving):
            await reply.end_cut()
            return None
        await reply.end(rest)
        return rewriter.usage.counted


class _Reply:
    """What has been sent to the client so far, and the ways in which it can end."""

    __slots__ = ("_client", "_is_ended", "_send", "is_started")

    def __init__(self, send: Send, client: Client) -> None:
        self._send = send
        self._client = client
        self.is_started = False
        self._is_ended = False

    async def start(self, answer: Answer) -> None:
        """Send the status and headers of an answer whose length is not known."""
        self.is_started = True
        headers = [
            (b"content-type", answer.headers.get(b"content-type", b"application/json")),
            (b"cache-control", b"no-store"),
        ]
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )

    async def more(self, data: bytes) -> None:
        """Send a piece."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        self._is_ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def whole(self, answer: Answer, body: bytes) -> None:
        """Send an answer in one."""
        self.is_started = True
        headers = [
            (b"content-type", answer.headers.get(b"content-type", b"application/json")),
            (b"content-length", b"%d" % len(body)),
        ]
        retry = (b"retry-after", b"x-should-retry")
        headers += [(name, answer.headers[name]) for name in retry if name in answer.headers]
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )
        await self.end(body)

    async def flushed(self) -> None:
        """Return when all that was written has left: until then the model's guard is held (I2)."""
        # Polled: neither transport nor kernel tells when its buffer has run empty; few clients are slow.
        while self._client.has_unsent() and not self._client.is_lost:  # noqa: ASYNC110
            await asyncio.sleep(FLUSH_POLL_SECONDS)

    async def end_cut(self) -> None:
        """End because the model was deleted: an error if one can be sent, else a closed connection."""
        if not self.is_started:
            raise admission.deleted()
        if self._is_ended or self._client.has_unsent():
            # Output of the model waits in the buffer: it must not leave, so nothing does.
            if self._client.has_unsent():
                await self._client.cut()
            return
        await self.end(b"data: " + problems.body_of(admission.deleted()) + b"\n\n")

    async def end_broken(self) -> None:
        """End because the engine broke off in the middle."""
        await self.end(b"data: " + problems.body_of(unavailable()) + b"\n\n")


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """Return a request's body. Raises Error(TOO_LARGE), and Error(INVALID) if the client went away."""
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
        raise Error(Kind.TOO_LARGE, f"The body of a request may have {bytes_max} bytes.")
    return body

"""One HTTP exchange with vLLM, whose response the plugin can end.

vLLM ends an aborted request like a finished one: status 200 and the finish reason `abort`, which no client must read as
an answer. So vLLM's messages pass through here; once the exchange is refused none does, but the refusal.

    event               FRESH       STARTED     RUNNING     OVER
    vLLM's head         -> STARTED
    vLLM's body                     -> RUNNING
    its end                         -> OVER     -> OVER
    vLLM's body, after              -> OVER     -> OVER
     `refuse`

A head is passed on with the first piece of its body, so that a response that has not begun can be replaced as a whole.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum, auto

import msgspec

from tunewarden.engine_protocol.messages import decoded
from tunewarden_vllm.refusals import Refused, no_lease, not_loaded
from tunewarden_vllm.surface import Message, Send

HEAD, BODY = "http.response.start", "http.response.body"
JSON = (b"content-type", b"application/json")
EVENTS = b"text/event-stream"
HELD_BYTES_MAX = 1024 * 1024

# The exchange that a task of vLLM works for: tasks inherit it.
CURRENT: ContextVar["Exchange | None"] = ContextVar("exchange", default=None)


class _Problem(msgspec.Struct):
    """The field of vLLM's errors that says what is wrong with a request."""

    param: str | None = None


class _Problems(msgspec.Struct):
    error: _Problem


class State(Enum):
    """How far a response is."""

    FRESH = auto()  # vLLM has sent nothing
    STARTED = auto()  # vLLM has sent the head, which is held
    RUNNING = auto()  # the head and a part of the body were passed on
    OVER = auto()  # it is complete, or refused: nothing more is passed on


class Exchange:
    """One exchange; `send` is what vLLM's application calls.

    If it runs on an adapter, `on_end` is called at its end, and `may_go_on` before each piece is passed on.

    Tasks that outlive it, such as a response that vLLM generates in the background, still find it: `has_ended`.
    """

    def __init__(self, send: Send) -> None:
        self.state = State.FRESH
        self.on_end: Callable[[], object] | None = None
        self.may_go_on: Callable[[], bool] | None = None
        self.has_ended = False
        self.refusal: Refused | None = None
        self._send = send
        self._task = asyncio.current_task()
        self._head: Message = {}
        self._held = b""
        self._passing = 0
        self._passed: list[asyncio.Future[None]] = []

    def end(self) -> None:
        """Note that the request is over: no task may use an adapter for it any more."""
        self.has_ended = True
        if self.on_end is not None:
            self.on_end()

    def refuse(self, why: Refused) -> None:
        """Pass on nothing more of the response; the first reason stands."""
        self.refusal = self.refusal or why

    async def is_quiet(self, *, within_seconds: float) -> None:
        """Return when nothing is being written; what is still waiting for a slow reader then is dropped."""
        if not self._passing:
            return
        passed = asyncio.get_running_loop().create_future()
        self._passed.append(passed)
        if (await asyncio.wait([passed], timeout=within_seconds))[1] and self._task is not None:
            self._task.cancel()  # the server then closes the connection
            await passed

    async def send(self, message: Message) -> None:
        """Take a message of vLLM's application."""
        if self.state is State.OVER:
            return
        if self.may_go_on is not None and not self.may_go_on():
            self.refuse(no_lease())
        if message["type"] == HEAD:
            self.state, self._head = State.STARTED, message
        elif message["type"] != BODY:
            await self._pass(message)
        elif self.refusal is not None:
            await self._refuse(self.refusal)
        elif self.state is State.STARTED and self._head["status"] == 404:
            await self._hold(message)
        else:
            await self._body(message)

    async def _body(self, message: Message) -> None:
        if self.state is State.STARTED:
            await self._pass(self._head)
            self.state = State.RUNNING
            if self.refusal is not None:  # while the head was written
                await self._refuse(self.refusal)
                return
        await self._pass(message)
        if not message.get("more_body", False):
            self.state = State.OVER

    async def _hold(self, message: Message) -> None:
        """Collect a 404: vLLM says in words that it has no such model; the gateway asks for a code."""
        self._held += message.get("body", b"")
        if message.get("more_body", False) and len(self._held) <= HELD_BYTES_MAX:
            return
        if _names_no_model(self._held):
            await self._refuse(not_loaded("of this request"))
            return
        await self._body({**message, "body": self._held})

    async def _refuse(self, why: Refused) -> None:
        """End the response with a refusal: instead of it, or as the last event of a stream."""
        if self.state is State.STARTED:
            size = (b"content-length", str(len(why.body)).encode())
            await self._pass({"type": HEAD, "status": why.status, "headers": [JSON, size]})
            await self._pass({"type": BODY, "body": why.body})
        elif dict(self._head["headers"]).get(b"content-type", b"").startswith(EVENTS):
            await self._pass({"type": BODY, "body": why.event})
        else:
            self.state = State.OVER
            raise why  # in the middle of a body: the server closes the connection
        self.state = State.OVER

    async def _pass(self, message: Message) -> None:
        self._passing += 1
        try:
            await self._send(message)
        finally:
            self._passing -= 1
            if not self._passing:
                for one in self._passed:
                    one.set_result(None)
                self._passed.clear()


def _names_no_model(body: bytes) -> bool:
    try:
        return decoded(body, _Problems).error.param == "model"
    except ValueError:
        return False

"""A client of an ASGI application, without a server: requests as tasks, and what they were answered."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from tests.fakes.vllm import BASE, KEY, FakeVllm

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import (
    EvictedAdapter,
    EvictionAnswer,
    Renewal,
    Renewed,
    decoded,
    push_head,
)
from tunewarden_vllm.surface import Message

CONFIG = json.dumps({"r": 8}).encode()
WEIGHTS = b"weights of the adapter"
MEMBER = "member-1"
LEASE_SECONDS = 5.0


class Exchange:
    """One request and its response. `reads` is cleared where the client is slow."""

    def __init__(
        self, vllm: FakeVllm, method: str, target: str, body: bytes, key: str = KEY
    ) -> None:
        path, _, query = target.partition("?")
        self.status = 0
        self.body = b""
        self.is_complete = False
        self.is_cut = False  # the client disconnects before the body's end
        self.reads = asyncio.Event()
        self.reads.set()
        self.waits = asyncio.Event()  # a piece waits for the client to read
        self._changed = asyncio.Event()
        self._pieces = (
            [body[: len(body) // 2], body[len(body) // 2 :]] if method == "PUT" else [body]
        )
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"authorization", f"Bearer {key}".encode())],
        }
        self.task = asyncio.create_task(vllm.middleware(scope, self._receive, self._send))

    async def whole(self) -> "Exchange":
        """Wait for the end of the response."""
        await self.task
        return self

    async def has(self, text: bytes) -> None:
        """Wait until the body has this text."""
        while text not in self.body:
            self._changed.clear()
            await self._changed.wait()

    @property
    def code(self) -> Any:
        """The code in an error."""
        return json.loads(self.body)["error"]["code"]

    async def _receive(self) -> Message:
        if not self._pieces:
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0)
        return {
            "type": "http.request",
            "body": piece,
            "more_body": bool(self._pieces) or self.is_cut,
        }

    async def _send(self, message: Message) -> None:
        if not self.reads.is_set():
            self.waits.set()
        await self.reads.wait()  # as uvicorn waits for a full buffer, before it writes
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            self.is_complete = not message.get("more_body", False)
        self._changed.set()


class Client:
    """A client of one vLLM with the plugin."""

    def __init__(self, vllm: FakeVllm) -> None:
        self.vllm = vllm

    def ask(self, method: str, target: str, body: bytes = b"", key: str = KEY) -> Exchange:
        return Exchange(self.vllm, method, target, body, key)

    def push(
        self,
        name: str,
        *,
        config: bytes = CONFIG,
        weights: bytes = WEIGHTS,
        base: str = BASE,
        member: str = MEMBER,
    ) -> Exchange:
        body = push_head(len(config)) + config + weights
        return self.ask("PUT", paths.push_path(name, base, member), body)

    def renew(self, nonce: str, *, member: str = MEMBER) -> Exchange:
        return self._ask_lease(Renewal(member, LEASE_SECONDS, nonce))

    def begin(self, member: str = MEMBER, *replaces: str) -> Exchange:
        asked = Renewal(member, LEASE_SECONDS, begins=True, replaces=list(replaces))
        return self._ask_lease(asked)

    def _ask_lease(self, asked: Renewal) -> Exchange:
        return self.ask("POST", paths.LEASE, msgspec.json.encode(asked))

    @staticmethod
    async def nonce_of(asked: Exchange) -> str:
        """Return the new nonce in an answer."""
        found = await asked.whole()
        assert found.status == 200, found.body
        return decoded(found.body, Renewed).nonce

    async def has_lease(self, member: str = MEMBER, *replaces: str) -> str:
        """Begin a lease and hold it; return the newest nonce."""
        first = await self.nonce_of(self.begin(member, *replaces))
        return await self.nonce_of(self.renew(first, member=member))

    async def load(self, *names: str) -> None:
        for name in names:
            found = await self.push(name).whole()
            assert found.status == 200, found.body

    def chat(self, model: str, *, stream: bool = True) -> Exchange:
        return self.ask(
            "POST", paths.CHAT_COMPLETIONS, json.dumps({"model": model, "stream": stream}).encode()
        )

    async def running(self, model: str, *, stream: bool = True) -> Exchange:
        """Begin a chat; return once the scheduler has it."""
        before = len(self.vllm.added)
        chat = self.chat(model, stream=stream)
        await self.vllm.until(lambda: len(self.vllm.added) > before)
        return chat

    async def evict(self, *names: str) -> list[EvictedAdapter]:
        found = await self.ask(
            "POST", paths.EVICTIONS, json.dumps({"names": names}).encode()
        ).whole()
        assert found.status == 200, found.body
        return decoded(found.body, EvictionAnswer).evicted

    def say(self, text: str) -> None:
        """Make every running sequence generate a text."""
        for state in list(self.vllm.request_states.values()):
            state.outputs.put_nowait(text)


def left_in(scratch: Path) -> list[Path]:
    """Return what is in the scratch directory of the one process that has one."""
    [directory] = scratch.iterdir()
    return list(directory.iterdir())


@asynccontextmanager
async def started(vllm: FakeVllm, *, has_lease: bool = True) -> AsyncIterator[Client]:
    """Start vLLM's application with the plugin; stop it at the end. Raises RuntimeError if the start is refused."""
    events: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "app": type("App", (), {"state": vllm.state})}
    task = asyncio.create_task(vllm.middleware(scope, events.get, answers.put))
    events.put_nowait({"type": "lifespan.startup"})
    answer = await answers.get()
    if answer["type"] != "lifespan.startup.complete":
        await task
        raise RuntimeError(answer["message"])
    try:
        client = Client(vllm)
        if has_lease:
            await client.has_lease()
        yield client
    finally:
        events.put_nowait({"type": "lifespan.shutdown"})
        with suppress(asyncio.CancelledError):
            await task

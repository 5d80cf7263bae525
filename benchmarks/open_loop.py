"""A load that comes when it comes: requests at their times, whether or not the ones before were answered.

Raw sockets on uvloop, about 100 µs a request. Times are time.monotonic's; latency counts from when a request was due,
so that a server that stands still is seen in all that should have come meanwhile.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

PADDING = {"role": "system", "content": "You answer questions about our product. " * 12}
# A connection that was idle for longer is not used again: the server may be about to close it.
IDLE_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class Asked:
    """One request and its answer. `status` is 0 as long as none came; `is_whole` if it came to its end."""

    data: bytes
    due_at: float
    model: str = ""
    key: str = ""
    prompt: str = ""
    is_stream: bool = False
    # How many bytes of the answer are read before the client goes away; 0: all.
    leave_after_bytes: int = 0
    # A slow reader's: how long it reads nothing, after the first piece.
    pause_seconds: float = 0.0
    on_piece: Callable[["Asked"], None] | None = None
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    sent_at: float = 0.0
    first_at: float = 0.0
    ended_at: float = 0.0
    is_whole: bool = False
    has_left: bool = False
    why_broken: str = ""
    # How much of the body was looked at so far, by whoever watches its pieces.
    looked_at: int = 0

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended_at - self.due_at

    @property
    def code(self) -> str:
        """The code of the error that is the body; "" without."""
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return ""


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, load: "Load") -> None:
        self.asked: Asked | None = None
        self._load = load
        self._is_lost = False
        self._is_kept = True
        self._free_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def send(self, asked: Asked) -> None:
        """Send a request."""
        self.asked = asked
        asked.sent_at = time.monotonic()
        self.transport.write(asked.data)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer."""
        asked = self.asked
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if asked is not None:
                asked.why_broken = f"not HTTP: {error}"
            self.transport.abort()
            return
        if asked is None:
            return
        if not asked.first_at:
            asked.first_at = time.monotonic()
            if asked.pause_seconds:
                self.transport.pause_reading()
                self._load.loop.call_later(asked.pause_seconds, self._read_on)
        if asked.on_piece is not None:
            asked.on_piece(asked)
        if asked.leave_after_bytes and len(asked.body) >= asked.leave_after_bytes:
            asked.has_left = True
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what was under way."""
        self._is_lost = True
        if self.asked is not None:
            self.asked.why_broken = self.asked.why_broken or f"closed: {exc}"
            self._end()
        elif self in self._load.idle:
            self._load.idle.remove(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        if self.asked is not None:
            self.asked.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Note the status."""
        if self.asked is not None:
            self.asked.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Collect a piece."""
        if self.asked is not None:
            self.asked.body += body

    def on_message_complete(self) -> None:
        """End."""
        if self.asked is not None:
            self.asked.is_whole = True
            self._is_kept = self._parser.should_keep_alive()
            if self.asked.on_piece is not None:
                self.asked.on_piece(self.asked)
            self._end()

    def _read_on(self) -> None:
        if not self._is_lost:
            self.transport.resume_reading()

    def _end(self) -> None:
        asked, self.asked = self.asked, None
        assert asked is not None
        asked.ended_at = time.monotonic()
        if not self._is_lost:
            if self._is_kept and not asked.pause_seconds:
                self._free_at = asked.ended_at
                self._load.idle.append(self)
            else:
                self.transport.close()
        self._load.ended(asked)

    @property
    def is_fit(self) -> bool:
        """Whether a request can be sent on it; one that was idle for long is closed."""
        if self._free_at and time.monotonic() - self._free_at > IDLE_SECONDS:
            self.transport.close()
        return not self._is_lost and not self.transport.is_closing()


class Load:
    """The requests that are under way to one server; `on_end` hears of each that has ended."""

    def __init__(self, address: tuple[str, int], on_end: Callable[[Asked], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.idle: list[Connection] = []
        self.under_way: set[Asked] = set()
        self.on_end = on_end
        self._address = address
        self._opening: set[asyncio.Task[None]] = set()

    def send(self, asked: Asked) -> None:
        """Send a request on an idle connection, or on a new one."""
        self.under_way.add(asked)
        while self.idle:
            connection = self.idle.pop()
            if connection.is_fit:
                connection.send(asked)
                return
        task = self.loop.create_task(self._open(asked))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def answered(self, asked: Asked) -> Asked:
        """Send a request and return when it has ended."""
        over = self.loop.create_future()
        asked.on_piece = _waking(over, asked.on_piece)
        self.send(asked)
        while asked in self.under_way:
            await asyncio.wait([over], timeout=0.05)
        return asked

    def ended(self, asked: Asked) -> None:
        """Hear that a request has ended."""
        self.under_way.discard(asked)
        self.on_end(asked)

    async def offer(
        self, rate: float, seconds: float, make: Callable[[float], Asked | None]
    ) -> None:
        """Send `rate` requests a second, evenly, made when they are due."""
        began, number = time.monotonic(), 0
        while (due := number / rate) < seconds:
            ahead = due - (time.monotonic() - began)
            if ahead > 0.0005:
                await asyncio.sleep(ahead)
            elif number % 32 == 0:
                await asyncio.sleep(0)  # late: the answers must still be read
            asked = make(began + due)
            if asked is not None:
                self.send(asked)
            number += 1

    async def settled(self, seconds: float) -> list[Asked]:
        """Return what has not ended after so long."""
        until = time.monotonic() + seconds
        while self.under_way and time.monotonic() < until:  # noqa: ASYNC110  each end would wake it
            await asyncio.sleep(0.02)
        return list(self.under_way)

    def close(self) -> None:
        """Close all connections that are idle."""
        while self.idle:
            self.idle.pop().transport.abort()

    async def _open(self, asked: Asked) -> None:
        try:
            _, connection = await self.loop.create_connection(
                lambda: Connection(self), *self._address
            )
        except OSError as error:
            asked.why_broken, asked.ended_at = f"not connected: {error}", time.monotonic()
            self.ended(asked)
            return
        connection.send(asked)


def _waking(
    over: "asyncio.Future[None]", before: Callable[[Asked], None] | None
) -> Callable[[Asked], None]:
    def on_piece(asked: Asked) -> None:
        if before is not None:
            before(asked)
        if asked.is_whole and not over.done():
            over.set_result(None)

    return on_piece


def chat(
    model: str, key: str, prompt: str, *, due_at: float, stream: bool = False, **fake: object
) -> Asked:
    """Return a chat request; `fake` says how the stand-in for the engine answers."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": [PADDING, {"role": "user", "content": prompt}],
    }
    fields |= {"stream": True} if stream else {}
    fields |= {"fake": fake} if fake else {}
    data = request("POST", "/v1/chat/completions", key, json.dumps(fields).encode())
    return Asked(data, due_at, model, key, prompt, stream)


def request(
    method: str, path: str, key: str, body: bytes = b"", kind: str = "application/json"
) -> bytes:
    """Return a request, whole."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {key}"]
    lines += [f"content-type: {kind}", f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


async def closed_loop(
    load: Load, connections: int, seconds: float, make: Callable[[float], Asked]
) -> float:
    """Return how many requests a second are answered while so many are always under way."""
    before = load.on_end
    until = time.monotonic() + seconds
    count = 0

    def on_end(asked: Asked) -> None:
        nonlocal count
        before(asked)
        if (now := time.monotonic()) < until:
            count += now > began
            load.loop.call_soon(load.send, make(now))

    load.on_end = on_end
    began = time.monotonic() + seconds / 4
    for _ in range(connections):
        load.send(make(time.monotonic()))
    await asyncio.sleep(until - time.monotonic())
    left = await load.settled(10)
    load.on_end = before
    assert not left, f"{len(left)} requests have no answer"
    return count / (until - began)

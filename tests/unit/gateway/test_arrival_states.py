"""The table at the top of `arrival.py`, held against what a connection does with every short run of reads."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
import uvicorn
from tests.support.state_tables import transitions
from uvicorn.server import ServerState

from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.gateway import arrival
from tunewarden.gateway.arrival import Arrival, Waiting
from tunewarden.gateway.connections import Connections
from tunewarden.gateway.exchange import Exchange
from tunewarden.gateway.flushes import Flushes
from tunewarden.gateway.inference import Inference
from tunewarden.gateway.protocol import ClientProtocol
from tunewarden.identity.key_format import Presented

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\nauthorization: Bearer x\r\n"
LENGTH = b"content-length: 2\r\n\r\n"
READS = {
    "half a head": POST,
    "the rest of it": LENGTH,
    "a head": POST + LENGTH,
    "a body": b"{}",
    "a request": POST + LENGTH + b"{}",
    "the last request": POST + b"connection: close\r\n" + LENGTH + b"{}",
    "two": (POST + LENGTH + b"{}") * 2,
    "nonsense": b"\x00\r\n\r\n",
}
EVENTS = (*READS, "the response", "too slow")
DEPTH = 3


class _Watched(Arrival):
    """Keeps the states that it goes to, by name."""

    __slots__ = ("changes",)

    def __init__(self, now: Callable[[], float]) -> None:
        self.changes: set[tuple[str, str]] = set()
        super().__init__(now)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "waiting":
            before, after = getattr(self, "waiting", None), cast("Waiting", value)
            if before is not None and before is not after:
                self.changes.add((before.name, after.name))
        super().__setattr__(name, value)


class _Worker:
    """A worker whose exchanges are answered when a test says so."""

    is_draining = False

    def __init__(self) -> None:
        self.inference = cast("Inference", _Inference())
        self.connections = Connections(Config())
        self.flushes = Flushes()
        self.cors = None

    def presented(self, headers: Iterable[tuple[bytes, bytes]]) -> Presented:
        return Presented("key_1", b"", "sk-…")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("every request here is an exchange")


class _Inference:
    body_bytes_max = 1000

    def __init__(self) -> None:
        self.observer = self

    logs_accesses = False
    tracing = None

    def ended(self, *_: object) -> None: ...


async def _life(events: tuple[str, ...]) -> set[tuple[str, str]] | None:
    """Return where a connection goes when these happen; None if one of them cannot."""
    ours, client = socket.socketpair()
    config = uvicorn.Config(cast("Any", _Worker()), ws="none", lifespan="off")
    state = ServerState()
    transport, connection = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: ClientProtocol(config=config, server_state=state, app_state={}), ours
    )
    connection.arrival = watched = _Watched(connection.loop.time)
    try:
        for event in events:
            if transport.is_closing():
                return None
            if event in READS:
                connection.data_received(READS[event])
            elif event == "the response":
                if connection.exchange is None:
                    return None
                connection.exchange.refuse(Error(Kind.INVALID, "an answer"))
            else:
                later = connection.loop.time() + 1000
                connection.end_if_overdue(later, client_seconds=30, engine_seconds=10_000)
            await asyncio.sleep(0)
        return watched.changes
    finally:
        transport.abort()
        client.close()


def test_a_connection_waits_for_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is sent to any engine: requests are answered when an event says so.
    monkeypatch.setattr(Exchange, "advance", lambda _: None)

    async def lives() -> set[tuple[str, str]]:
        changes: set[tuple[str, str]] = set()
        runs: list[tuple[str, ...]] = [()]
        for _ in range(DEPTH):
            longer = [(*events, event) for events in runs for event in EVENTS]
            runs = []
            for events in longer:
                found = await _life(events)
                if found is not None:
                    runs.append(events)
                    changes |= found
        return changes

    changes = asyncio.run(lives())
    assert changes == {(before, after) for before, _, after in transitions(arrival, Waiting)}

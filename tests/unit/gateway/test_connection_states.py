"""The table at the top of `connection.py`, held against every short run of what can happen to a client's connection."""

import asyncio
from itertools import product
from typing import Any, cast

import pytest
from tests.support.state_tables import transitions

from tunewarden import sockets
from tunewarden.gateway import connection
from tunewarden.gateway.connection import ClientConnection, State

EVENTS = ("`guard`", "`drop`", "`lost`, all acknowledged", "`lost`, not all of it")
LENGTH = 4


class _Transport:
    """Closes when a test says so; what was written stays unacknowledged until then."""

    def __init__(self) -> None:
        self.buffered = 0

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def abort(self) -> None: ...


def _happen(client: ClientConnection, transport: _Transport, event: str) -> None:
    if event == "`guard`":
        client.guard()
    elif event == "`drop`":
        client.drop()
    else:
        client.written = 1
        client.mark()
        transport.buffered = 0 if event == "`lost`, all acknowledged" else 1
        client.lost()


def test_a_connection_goes_where_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    lingers: list[bool] = []
    monkeypatch.setattr(sockets, "descriptor_of", lambda _: 0)
    monkeypatch.setattr(sockets, "unacknowledged", lambda _: 0)
    monkeypatch.setattr(sockets, "set_dropping", lambda _, drops: lingers.append(drops))
    found = set()
    for events in product(EVENTS, repeat=LENGTH):
        transport = _Transport()
        loop = cast("asyncio.AbstractEventLoop", None)
        client = ClientConnection(cast("Any", transport), loop, cast("Any", None))
        for event in events:
            before, known = client.state, len(lingers)
            if before is State.LOST and "lost" in event:
                break  # once
            _happen(client, transport, event)
            if client.state is not before:
                found.add((before.name, event, client.state.name))
            if before is State.LOST:
                assert lingers[known:] == [], "the descriptor may be another connection's"
    stays = {("DROPPED", "`drop`", "DROPPED")}
    assert found == transitions(connection, State) - stays


def test_only_an_acknowledged_end_restores_a_normal_close(monkeypatch: pytest.MonkeyPatch) -> None:
    lingers: list[bool] = []
    monkeypatch.setattr(sockets, "descriptor_of", lambda _: 0)
    monkeypatch.setattr(sockets, "unacknowledged", lambda _: 0)
    monkeypatch.setattr(sockets, "set_dropping", lambda _, drops: lingers.append(drops))
    for events, expected in {
        ("`guard`", "`lost`, all acknowledged"): [True, False],
        ("`guard`", "`lost`, not all of it"): [True],
        ("`guard`", "`drop`", "`lost`, all acknowledged"): [True],
        ("`drop`", "`lost`, all acknowledged"): [True],
        ("`lost`, all acknowledged", "`guard`", "`drop`"): [],
    }.items():
        lingers.clear()
        transport = _Transport()
        loop = cast("asyncio.AbstractEventLoop", None)
        client = ClientConnection(cast("Any", transport), loop, cast("Any", None))
        for event in events:
            _happen(client, transport, event)
        assert lingers == expected, events

"""The table at the top of `upstream_connection.py`, held against every short life of a connection."""

import socket
from collections.abc import Iterator
from typing import Any, cast

from tests.support.state_tables import transitions

from tunewarden.engines import upstream_connection
from tunewarden.engines.request import Request
from tunewarden.engines.upstream_connection import State, UpstreamConnection

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
READS = {
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a part of a head": HEAD[:20],
    "the rest of the head": HEAD[20:],
    "a head": HEAD,
    "a head without a length": b"HTTP/1.1 200 OK\r\n\r\n",
    "a byte": b"{",
    "whole": HEAD + b"{}",
    "whole, the last": HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + b"{}",
    "two": HEAD + b"{}" + HEAD,
    "no response": b"\x00",
    "whole, then nonsense": HEAD + b"{}\x00",
}
DEPTH = 4


class _Transport:
    """What a connection asks of its transport. As on an event loop, nothing is read after it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def get_extra_info(self, name: str) -> Any:
        return socket.socket(socket.AF_INET) if name == "socket" else "TLS"

    def write(self, data: bytes) -> None:
        assert not self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _Watched(UpstreamConnection):
    """Keeps the states that each one goes to, by name."""

    changes: set[tuple[str, str]]

    def __setattr__(self, name: str, value: object) -> None:
        if name == "state":
            before, after = self.__dict__.get("state"), cast("State", value)
            self.__dict__.setdefault("changes", set())
            if before is not None and before is not after:
                self.changes.add((before.name, after.name))
        super().__setattr__(name, value)


class _Pool:
    """Keeps nothing but the last request that was to be sent once more."""

    def __init__(self, *, is_full: bool) -> None:
        self.is_full = is_full
        self.again: list[Request] = []

    def give_back(self, connection: UpstreamConnection) -> None:
        if self.is_full:
            connection.close()

    def lost(self, connection: UpstreamConnection) -> None: ...

    def open_for(self, request: Request) -> None:
        self.again.append(request)


class _Asked(Request):
    """Notes its callbacks. It may abort itself as soon as its response begins."""

    def __init__(self, *, aborts: bool) -> None:
        super().__init__()
        self.told: list[str] = []
        self._aborts = aborts

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        assert (status, self.told) == (200, [])
        self.told.append("begun")
        if self._aborts:
            self.told.append("aborted")
            self.abort()

    def received(self, piece: bytes, *, is_end: bool) -> None:
        assert self.told == ["begun"]
        if is_end:
            self.told.append("whole")

    def connection_failed(self) -> None:
        self.told.append("broke")


class _Life:
    """A connection, and what happened on it."""

    def __init__(self, *, is_full: bool) -> None:
        self.pool = _Pool(is_full=is_full)
        self.transport = _Transport()
        self.connection = _Watched(self.pool)
        self.connection.connection_made(cast("Any", self.transport))
        self.asked: list[_Asked] = []

    def happens(self, event: str) -> bool:
        """Let something happen; False if it cannot now."""
        connection = self.connection
        if event in {"carry", "carry, to abort"}:
            if not connection.is_open or connection.request is not None:
                return False
            self.asked.append(_Asked(aborts=event != "carry"))
            connection.carry(self.asked[-1])
        elif event in READS:
            if self.transport.is_closed:
                return False
            connection.data_received(READS[event])
        elif event == "abort":
            if connection.request is None:
                return False
            self.asked[-1].told.append("aborted")
            connection.request.abort()
        elif event == "close":
            if not connection.is_open:
                return False
            connection.close()
        else:
            if connection.state is State.CLOSED:
                return False
            self.transport.is_closed = True
            connection.connection_lost(None if event == "lost" else ConnectionResetError())
        return True


EVENTS = ("carry", "carry, to abort", *READS, "abort", "close", "lost", "reset")


def _lives() -> Iterator[_Life]:
    """Yield every life of up to DEPTH events, over a pool with room and over a full one."""
    for is_full in (False, True):
        lives: list[tuple[str, ...]] = [()]
        for _ in range(DEPTH):
            longer = [(*events, event) for events in lives for event in EVENTS]
            lives = []
            for events in longer:
                life = _Life(is_full=is_full)
                if all(life.happens(event) for event in events):
                    lives.append(events)
                    yield life


def test_a_connection_goes_from_state_to_state_as_the_table_says() -> None:
    changes = {change for life in _lives() for change in life.connection.changes}
    assert changes == {
        (before, after) for before, _, after in transitions(upstream_connection, State)
    }


def test_a_request_ends_once_and_in_one_way() -> None:
    lives = 0
    for life in _lives():
        lives += 1
        if life.connection.state is not State.CLOSED:
            life.happens("lost")
        assert life.connection.request is None
        for asked in life.asked:
            ends = [told for told in asked.told if told != "begun"]
            again = [one for one in life.pool.again if one is asked]
            assert len(ends) + len(again) == 1, (asked.told, again)
    assert lives > 1000

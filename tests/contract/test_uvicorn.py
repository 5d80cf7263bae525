"""What `gateway/protocol.py` takes of uvicorn, some of it private: names, parameters, and what happens when.

A failure here means that a new uvicorn differs. Read what changed and adapt `gateway/protocol.py` before the range in
pyproject.toml is widened; the tests of the HTTP interface alone might pass by luck.
"""

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn import _types
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

REQUEST = b"GET /%d HTTP/1.1\r\nHost: here\r\n\r\n"
# Methods that we override, call, or leave to be called by the parser, with their parameters.
METHODS = {
    "__init__": ("config", "server_state", "app_state", "_loop"),
    "connection_made": ("transport",),
    "connection_lost": ("exc",),
    "eof_received": (),
    "data_received": ("data",),
    "pause_writing": (),
    "resume_writing": (),
    "on_message_begin": (),
    "on_url": ("url",),
    "on_header": ("name", "value"),
    "on_headers_complete": (),
    "on_body": ("body",),
    "on_message_complete": (),
    "_start_asgi_task": ("cycle", "app"),
    "on_response_complete": (),
    "send_400_response": ("msg",),
    "shutdown": (),
}
# Attributes of a connection that we read or set.
STATE = {
    "access_log", "access_logger", "app", "app_state", "asgi_version", "client", "config", "connections",
    "cycle", "flow", "headers", "logger", "loop", "parser", "pipeline", "root_path", "scheme", "scope",
    "server", "server_state", "tasks", "timeout_keep_alive", "transport",
}  # fmt: skip


class _Recording(HttpToolsProtocol):
    """Notes which request's task uvicorn starts, and when."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.started: list[str] = []

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: _types.ASGI3Application) -> None:
        self.started.append(cycle.scope["path"])
        super()._start_asgi_task(cycle, app)


class _Application:
    """Answers once it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.let.wait()
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _with_connection(
    check: Callable[[_Recording, socket.socket, _Application], Awaitable[None]],
) -> None:
    """Run `check` with a connection of uvicorn's to a client's socket."""

    async def run() -> None:
        application = _Application()
        config = uvicorn.Config(application, ws="none", lifespan="off", timeout_keep_alive=7)
        state = ServerState()
        state.default_headers = [(b"x-default", b"yes")]
        ours, client = socket.socketpair()
        client.setblocking(False)
        transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: _Recording(config=config, server_state=state, app_state={}), ours
        )
        try:
            await asyncio.wait_for(check(protocol, client, application), timeout=5)
        finally:
            transport.abort()
            client.close()
            await asyncio.sleep(0)

    asyncio.run(run())


def _reads(protocol: _Recording) -> bool:
    return not protocol.flow.read_paused


async def _send(client: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(client, data)
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_parameters_that_we_rely_on(name: str) -> None:
    method = getattr(HttpToolsProtocol, name, None)
    assert method is not None, f"HttpToolsProtocol.{name} is gone"
    assert tuple(inspect.signature(method).parameters)[1:] == METHODS[name]


def test_the_names_that_we_import_are_what_they_were() -> None:
    assert STATUS_LINE[404] == b"HTTP/1.1 404 Not Found\r\n"
    assert set(range(100, 600)) <= STATUS_LINE.keys()
    assert hasattr(_types, "ASGI3Application")
    assert tuple(inspect.signature(uvicorn.Server.handle_exit).parameters) == (
        "self",
        "sig",
        "frame",
    )
    parameters = inspect.signature(uvicorn.Config).parameters
    ours = {
        "http", "loop", "ws", "lifespan", "interface", "access_log", "log_level", "server_header", "date_header",
        "backlog", "timeout_keep_alive", "timeout_graceful_shutdown",
    }  # fmt: skip
    assert ours <= parameters.keys()


def test_a_connection_has_the_state_that_we_use() -> None:
    async def check(protocol: _Recording, _: socket.socket, __: _Application) -> None:
        missing = {name for name in STATE if not hasattr(protocol, name)}
        assert missing == set()
        assert vars(protocol)["cycle"] is None
        assert protocol.timeout_keep_alive == 7
        assert protocol.server_state.total_requests == 0
        assert protocol.server_state.default_headers == [(b"x-default", b"yes")]
        assert protocol in protocol.server_state.connections
        assert _reads(protocol)

    _with_connection(check)


def test_pipelined_requests_wait_their_turn_in_the_pipeline_and_reading_stops() -> None:
    async def check(protocol: _Recording, client: socket.socket, application: _Application) -> None:
        await _send(client, b"".join(REQUEST % number for number in range(3)))
        assert protocol.started == ["/0"]
        # The newest stands at the left; each is a cycle and its application.
        assert [cycle.scope["path"] for cycle, _ in protocol.pipeline] == ["/2", "/1"]
        assert [app for _, app in protocol.pipeline] == [protocol.app, protocol.app]
        assert not _reads(protocol)
        application.let.set()
        await asyncio.sleep(0.05)
        assert protocol.started == ["/0", "/1", "/2"]
        assert protocol.server_state.total_requests == 3
        assert _reads(protocol)
        assert client.recv(65536).count(b"HTTP/1.1 200 OK\r\nx-default: yes\r\n") == 3
        assert protocol.cycle.response_complete is True

    _with_connection(check)


def test_a_lost_connection_and_a_shutdown_touch_four_fields_of_a_cycle() -> None:
    """`inference.Exchange` stands where a cycle would, with only these."""

    async def check(protocol: _Recording, client: socket.socket, _: _Application) -> None:
        event = asyncio.Event()
        fields = {"disconnected": False, "keep_alive": True, "response_complete": False}
        cycle = SimpleNamespace(**fields, message_event=event)
        protocol.cycle = cycle  # type: ignore[assignment]  # what uvicorn's shutdown reads of one
        protocol.shutdown()
        assert (cycle.keep_alive, protocol.transport.is_closing()) == (False, False)
        client.close()
        await asyncio.sleep(0.02)
        assert cycle.disconnected is True
        assert event.is_set()
        assert vars(cycle).keys() == {*fields, "message_event"}

    _with_connection(check)


def test_a_shutdown_closes_a_free_connection() -> None:
    async def check(protocol: _Recording, _: socket.socket, __: _Application) -> None:
        protocol.shutdown()
        assert protocol.transport.is_closing()

    _with_connection(check)


def test_what_is_no_http_comes_to_send_400_response_and_the_connection_closes() -> None:
    async def check(protocol: _Recording, client: socket.socket, _: _Application) -> None:
        said: list[str] = []
        protocol.send_400_response = said.append  # type: ignore[method-assign, assignment]  # records what would be sent
        await _send(client, b"\x00\r\n\r\n")
        assert said == ["Invalid HTTP request received."]
        HttpToolsProtocol.send_400_response(protocol, said[0])
        assert protocol.transport.is_closing()

    _with_connection(check)


def test_a_cycle_says_whether_its_body_and_its_answer_are_complete() -> None:
    async def check(protocol: _Recording, client: socket.socket, application: _Application) -> None:
        await _send(client, b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nab")
        cycle = protocol.cycle
        assert (bytes(cycle.body), cycle.more_body, cycle.response_complete) == (b"ab", True, False)
        await _send(client, b"cd")
        assert (bytes(cycle.body), cycle.more_body) == (b"abcd", False)
        application.let.set()
        await asyncio.sleep(0.02)
        assert cycle.response_complete is True

    _with_connection(check)


def test_an_answer_after_which_the_connection_closes_says_so() -> None:
    async def check(protocol: _Recording, client: socket.socket, application: _Application) -> None:
        await _send(client, REQUEST % 0)
        protocol.cycle.keep_alive = False
        application.let.set()
        await asyncio.sleep(0.02)
        assert b"\r\nconnection: close\r\n" in client.recv(65536)
        assert protocol.transport.is_closing()

    _with_connection(check)

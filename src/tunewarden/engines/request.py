"""A request to an engine, and the callbacks for its response."""

import asyncio
from typing import Protocol


class Connection(Protocol):
    """The connection on which a request is in flight: `upstream_connection.UpstreamConnection`."""

    request: "Request | None"

    def abort(self) -> None:
        """Close it at once."""

    def pause(self) -> None:
        """Stop reading until `resume`."""

    def resume(self) -> None:
        """Resume reading."""


class Request:
    """One request to an engine. Subclasses implement the callbacks for its response."""

    __slots__ = ("closed_by", "connection", "data", "is_waiting")

    def __init__(self) -> None:
        # The pid of the process that closed the connection without answering; None: none has.
        self.closed_by: int | None = None
        self.data = b""  # head and body
        self.connection: Connection | None = None
        self.is_waiting = False  # for a connection that is being opened

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The response has begun; `received` follows at once."""
        raise NotImplementedError

    def received(self, piece: bytes, *, is_end: bool) -> None:
        """A part of the body was read; at the end the connection is free again."""
        raise NotImplementedError

    def connection_failed(self) -> None:
        """No engine could be reached, or it closed the connection."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close the connection to the engine; no callback follows."""
        self.is_waiting = False
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.request = None
            connection.abort()

    def pause(self) -> None:
        """Stop reading from the engine (back-pressure)."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """Read from the engine again."""
        if self.connection is not None:
            self.connection.resume()


class AwaitedRequest(Request):
    """A request whose complete response is awaited."""

    __slots__ = ("_bytes_max", "_pieces", "_size", "_status", "answer")

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._bytes_max = bytes_max
        self._status = 0
        self._pieces: list[bytes] = []
        self._size = 0

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Keep the status."""
        self._status = status

    def received(self, piece: bytes, *, is_end: bool) -> None:
        """Collect the body; complete the future at its end."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._bytes_max:
            self.abort()
            self.connection_failed()
        elif is_end and not self.answer.done():
            self.answer.set_result((self._status, b"".join(self._pieces)))

    def connection_failed(self) -> None:
        """Fail the future."""
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError("the engine closed the connection"))

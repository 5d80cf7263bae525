"""Many streams and deletions at once, watched by one loop that knows in which order bytes came.

One thread and one `epoll`: whatever a stream has received is taken before the answer to a deletion is
looked at, so that "after the answer" means what it says.
"""

import json
import selectors
import socket
import time
from dataclasses import dataclass, field

from tests.support.servers import Server

READ_BYTES = 256 * 1024


@dataclass(slots=True)
class Exchange:
    """One request on a connection of its own, and what came back, with times (time.monotonic)."""

    connection: socket.socket
    sent_at: float
    received: bytearray = field(default_factory=bytearray)
    # Length of `received` after each read, and when.
    reads: list[tuple[float, int]] = field(default_factory=list)
    ended_at: float | None = None
    reset: bool = False
    is_read: bool = True

    @property
    def status(self) -> int:
        return int(self.received[9:12] or b"0")

    @property
    def head(self) -> dict[str, str]:
        lines = bytes(self.received).partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        """The body without its framing, as far as it came."""
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in head.lower():
            return rest
        whole = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size or b"0", 16)
            whole, rest = whole + rest[:length], rest[length + 2 :]
        return whole

    @property
    def is_whole(self) -> bool:
        """Whether the answer came to the end that its framing announces."""
        head, border, rest = bytes(self.received).partition(b"\r\n\r\n")
        if not border:
            return False
        if b"transfer-encoding: chunked" in head.lower():
            return rest.endswith(b"\r\n0\r\n\r\n")
        return len(rest) >= int(self.head.get("content-length", "0"))

    @property
    def events(self) -> list[bytes]:
        return [event for event in self.body.split(b"\n\n") if event]

    @property
    def chunks(self) -> int:
        return self.body.count(b'"content"')

    @property
    def error_code(self) -> object:
        """The code of the SSE event, or of the body, that is an error; None without."""
        last = (self.events or [b"{}"])[-1].removeprefix(b"data: ")
        try:
            found = json.loads(last)
        except ValueError:
            return None
        return found["error"]["code"] if isinstance(found, dict) and "error" in found else None

    def bytes_after(self, moment: float) -> int:
        """How much came after a moment."""
        before = max((size for at, size in self.reads if at <= moment), default=0)
        return len(self.received) - before

    def last_content_at(self) -> float:
        """When the last piece with output of the model came."""
        border = self.received.rfind(b'"content"')
        return min(at for at, size in self.reads if size > border)


class Watcher:
    """Sends requests to one server and watches all their answers."""

    def __init__(self, server: Server, key: str | None = None) -> None:
        self._server = server
        self._key = key or server.owner_key
        self._selector = selectors.DefaultSelector()
        self._open: list[Exchange] = []

    def chat(
        self,
        model: str,
        *,
        stream: bool = True,
        read: bool = True,
        receive_bytes: int = 0,
        keep: bool = False,
        **how: object,
    ) -> Exchange:
        """Ask for a chat completion; `read=False` leaves what comes in the kernel, `keep` the connection open."""
        fields = {"model": model, "stream": stream, "fake": how, "messages": []}
        body = json.dumps(fields).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n"
        return self._send(head, body, is_read=read, receive_bytes=receive_bytes, is_kept=keep)

    def delete(self, model: str, *, retry: int = 0) -> Exchange:
        head = f"DELETE /v1/models/{model} HTTP/1.1\r\nx-stainless-retry-count: {retry}\r\n"
        return self._send(head, b"", is_read=True, receive_bytes=0, is_last=True)

    def _send(
        self,
        head: str,
        body: bytes,
        *,
        is_read: bool,
        receive_bytes: int,
        is_kept: bool = False,
        is_last: bool = False,
    ) -> Exchange:
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect(self._server.address)
        common = f"host: x\r\nauthorization: Bearer {self._key}\r\n"
        common += "\r\n" if is_kept else "connection: close\r\n\r\n"
        sent_at = time.monotonic()
        connection.sendall((head + common).encode() + body)
        connection.setblocking(False)
        exchange = Exchange(connection, sent_at, is_read=is_read)
        if is_read:
            self._selector.register(connection, selectors.EVENT_READ, exchange)
        # Deletions stand last: see `_take`.
        self._open.insert(len(self._open) if is_last else 0, exchange)
        return exchange

    def watch(self, *wanted: Exchange, seconds: float) -> None:
        """Read everything until what is wanted has ended; fail when that takes too long."""
        until = time.monotonic() + seconds
        while any(exchange.ended_at is None for exchange in wanted):
            if time.monotonic() > until:
                raise AssertionError(f"no end within {seconds} s")
            self.turn(until - time.monotonic())

    def watch_for(self, seconds: float) -> None:
        """Read everything that comes for a while."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.turn(left)

    def wait_for_chunks(self, exchanges: list[Exchange], count: int, seconds: float = 10) -> None:
        """Read everything until each of these streams runs."""
        until = time.monotonic() + seconds
        while any(exchange.received.count(b'"content"') < count for exchange in exchanges):
            if time.monotonic() > until:
                raise AssertionError("the streams do not run")
            self.turn(0.1)

    def turn(self, seconds: float) -> None:
        """Wait for anything, then take all that is there: of streams first, of deletions last."""
        if self._selector.get_map() and self._selector.select(max(0.0, seconds)):
            for exchange in [one for one in self._open if one.is_read]:
                _take(exchange)
                if exchange.ended_at is not None:
                    self._selector.unregister(exchange.connection)
                    exchange.connection.close()
                    self._open.remove(exchange)

    def read_on(self, exchange: Exchange) -> None:
        """Begin to read one that was not read."""
        exchange.is_read = True
        self._selector.register(exchange.connection, selectors.EVENT_READ, exchange)

    def close(self) -> None:
        for exchange in self._open:
            exchange.connection.close()
        self._selector.close()


def _take(exchange: Exchange) -> None:
    while exchange.ended_at is None:
        try:
            piece = exchange.connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            piece, exchange.reset = b"", True
        now = time.monotonic()
        exchange.received += piece
        exchange.reads.append((now, len(exchange.received)))
        if not piece:
            exchange.ended_at = now

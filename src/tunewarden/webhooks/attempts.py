"""One attempt to send an event: over a connection of its own, to an address that was checked, without redirects.

The name is resolved once, and the connection goes to an address of that answer: a name that means something else a
moment later (DNS rebinding) changes nothing. No proxy of the environment is used.
"""

import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address

from tunewarden.clock import Clock
from tunewarden.webhooks import heads
from tunewarden.webhooks.addresses import Address, AddressPolicy
from tunewarden.webhooks.failures import AttemptFailed, Failure, Interrupted
from tunewarden.webhooks.heads import Head
from tunewarden.webhooks.names import LookUps, Resolve, resolve
from tunewarden.webhooks.urls import WebhookUrl

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
TOTAL_SECONDS = 15.0
# An answer is read up to the end of its head. What follows is read for a moment only, so that a receiver that still
# writes sees no error.
PIECE_BYTES = 16 * 1024
REST_BYTES_MAX = 64 * 1024
REST_SECONDS = 0.2
ADDRESSES_TRIED_MAX = 3
GONE = 410


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt: the answer's status, or why there is none.

    `retry_after_seconds` is when a receiver that is busy asks to be tried again, not bounded here.
    """

    status: int | None
    failure: Failure | None
    retry_after_seconds: int | None = None


@cache
def tls_context() -> ssl.SSLContext:
    """Return the system's authorities, or those of `SSL_CERT_FILE`."""
    return ssl.create_default_context()


class Attempts:
    """Makes attempts, on several threads at once."""

    def __init__(
        self,
        policy: AddressPolicy,
        clock: Clock,
        *,
        resolve: Resolve = resolve,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._look_ups = LookUps(resolve, clock)
        self._total_seconds = total_seconds
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Break off what is in flight and begin nothing any more: each attempt raises Interrupted."""
        self._stopped.set()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def check(self, url: WebhookUrl) -> list[str]:
        """Return the addresses of a URL, all of which are allowed. Raises AttemptFailed, Interrupted."""
        found = [ip_address(one) for one in self._look_ups.addresses(url, self._stopped)]
        if not found:
            raise AttemptFailed(Failure.NAME)
        if not all(self._allows(url, one) for one in found):
            raise AttemptFailed(Failure.ADDRESS)
        return [str(one) for one in found]

    def send(self, url: WebhookUrl, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send one request and return what became of it. Raises Interrupted."""
        deadline = self._clock.monotonic() + self._total_seconds
        try:
            head = self._send(url, _request(url, headers, body), deadline)
        except AttemptFailed as error:
            failure = error.failure
        except TimeoutError:
            failure = Failure.TIMEOUT
        except ssl.SSLError:
            failure = Failure.TLS
        except OSError:
            failure = Failure.CLOSED
        else:
            return _answer(head)
        if self._stopped.is_set():
            raise Interrupted
        return Answer(None, failure)

    def _allows(self, url: WebhookUrl, address: Address) -> bool:
        return self.policy.allows(address) and (url.is_tls or self.policy.allows_http(address))

    def _send(self, url: WebhookUrl, request: bytes, deadline: float) -> Head:
        connection = self._connected(self.check(url), url.port, deadline)
        try:
            if url.is_tls:
                connection = self._encrypted(connection, url.host, deadline)
            connection.settimeout(self._left(deadline, READ_SECONDS))
            connection.sendall(request)
            head = self._head(connection, deadline)
            self._read_rest(connection)
            return head
        finally:
            self._close(connection)

    def _connected(self, addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
        for address in addresses[:ADDRESSES_TRIED_MAX]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._track(connection)
                connection.settimeout(self._left(deadline, CONNECT_SECONDS))
                connection.connect((address, port))
            except OSError:
                self._close(connection)
            except BaseException:
                self._close(connection)
                raise
            else:
                return connection
        raise AttemptFailed(Failure.CONNECT)

    def _encrypted(self, connection: socket.socket, host: str, deadline: float) -> ssl.SSLSocket:
        with self._lock:
            self._open.discard(connection)
        try:
            encrypted = tls_context().wrap_socket(
                connection, server_hostname=host, do_handshake_on_connect=False
            )
        except BaseException:
            connection.close()
            raise
        try:
            self._track(encrypted)
            encrypted.settimeout(self._left(deadline, CONNECT_SECONDS))
            encrypted.do_handshake()
        except BaseException:
            self._close(encrypted)
            raise
        return encrypted

    def _head(self, connection: socket.socket, deadline: float) -> Head:
        """Return the head of the answer, all of it: what trickles in must be complete by the deadline."""
        received = b""
        while True:
            connection.settimeout(self._left(deadline, READ_SECONDS))
            piece = connection.recv(PIECE_BYTES)
            if not piece:
                raise AttemptFailed(Failure.CLOSED)
            received += piece
            head = heads.read(received, self._clock.now())
            if head is not None:
                return head

    def _read_rest(self, connection: socket.socket) -> None:
        until = self._clock.monotonic() + REST_SECONDS
        size = 0
        with suppress(OSError):
            while size < REST_BYTES_MAX and (left := until - self._clock.monotonic()) > 0:
                connection.settimeout(left)
                piece = connection.recv(PIECE_BYTES)
                if not piece:
                    return
                size += len(piece)

    def _left(self, deadline: float, seconds_max: float) -> float:
        left = deadline - self._clock.monotonic()
        if left <= 0:
            raise AttemptFailed(Failure.TIMEOUT)
        return min(left, seconds_max)

    def _track(self, connection: socket.socket) -> None:
        with self._lock:
            if self._stopped.is_set():
                raise Interrupted
            self._open.add(connection)

    def _close(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()


def _answer(head: Head) -> Answer:
    status = head.status
    if 200 <= status < 300:
        return Answer(status, None)
    failure = Failure.REDIRECT if 300 <= status < 400 else Failure.STATUS
    return Answer(status, failure, head.retry_after_seconds)


def _request(url: WebhookUrl, headers: Mapping[str, str], body: bytes) -> bytes:
    every = {
        "host": url.authority,
        **headers,
        "accept": "*/*",
        "content-length": str(len(body)),
        "connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    return f"POST {url.path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body

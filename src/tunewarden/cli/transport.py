"""The transport port of commands, and HTTP to a server.

A key is sent only to a server that has identified itself as Tunewarden, and nothing at all to OpenAI's hosts: the
SDK's environment variables may point there, and a command that deletes must not reach models there.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from typing import Protocol
from urllib.parse import urlsplit

from tunewarden.api.product import PRODUCT
from tunewarden.errors import Error, Kind

ANSWER_BYTES_MAX = 256 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
ANSWER_SECONDS = 120.0
ROOT = "/v1"
# These hosts and their subdomains.
OPENAI_HOSTS = ("openai.com", "openai.azure.com")
# Statuses of a proxy whose server is not running, and of a server at its connection limit.
NOT_RUNNING = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `path` is relative to `/v1`, or `is_at_root`, and may have a query. The body is read once.

    With `into`, the body of a response with status 200 goes there piece by piece, however large; that response has none.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[bytes] | None = None
    into: Callable[[bytes], object] | None = None
    is_at_root: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends requests with the caller's key."""

    name: str

    def send(self, request: Request) -> Answer:
        """Send a request and return the complete response. Raises Error(UNAVAILABLE), Error(FORBIDDEN)."""

    def is_served(self) -> bool:
        """Return whether a server runs there; without one no model answers and no job continues."""


class NotServing(Error):
    """No server at the address; the request was not sent."""

    def __init__(self, name: str) -> None:
        super().__init__(Kind.UNAVAILABLE, f"No server answers at {name}. Is it running?")


class Http:
    """A server at an address such as `http://127.0.0.1:8800/v1`; without a path, it is `/v1`."""

    def __init__(self, url: str, key: str | None) -> None:
        """Check the address; without a key none is sent. Raises Error(INVALID), and Error(FORBIDDEN) for a host of OpenAI's."""
        self.name = url.rstrip("/")
        try:
            parts = urlsplit(self.name)
            # As it is looked up: letters that IDNA maps to others (RFC 3490) name the same host.
            host, _ = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError as error:  # UnicodeError included
            raise self._no_address() from error
        if not host or parts.scheme not in {"http", "https"}:
            raise self._no_address()
        _refuse_openai(host)
        self._netloc = parts.netloc
        self._root = parts.path or ROOT
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._key = key
        self._is_ours = False

    def is_served(self) -> bool:
        """Return True: if there is no server, the next request fails."""
        return True

    def send(self, request: Request) -> Answer:
        """Send a request and return the complete response. Raises Error(UNAVAILABLE), Error(FORBIDDEN)."""
        connection = self._connected()
        try:
            headers = dict(request.headers)
            if self._key is not None:
                headers["authorization"] = f"Bearer {self._key}"
            # If the server refuses a body early, sending fails with EPIPE; its response may still be readable.
            with suppress(BrokenPipeError, ConnectionResetError):
                root = self._root.removesuffix(ROOT) if request.is_at_root else self._root
                connection.request(request.method, root + request.path, request.body, headers)
            return _answer(connection, request.into)
        except (OSError, HTTPException, ValueError) as error:
            raise Error(
                Kind.UNAVAILABLE,
                f"{self.name} gave no answer, or not all of it. Is the server running?",
            ) from error
        finally:
            connection.close()

    def _connected(self) -> HTTPConnection:
        """Return a connection to a Tunewarden server. Raises Error(INVALID), NotServing, Error(FORBIDDEN)."""
        try:
            connection = self._kind(self._netloc, timeout=ANSWER_SECONDS)
        except HTTPException as error:  # such as a URL with a user
            raise self._no_address() from error
        try:
            connection.connect()
            if not self._is_ours:
                self._check_is_ours(connection)
        except (OSError, HTTPException, UnicodeError) as error:
            connection.close()
            raise NotServing(self.name) from error
        except Error:
            connection.close()
            raise
        self._is_ours = True
        return connection

    def _check_is_ours(self, connection: HTTPConnection) -> None:
        """Send a request without a key. Raises Error(FORBIDDEN) unless the server identifies itself as Tunewarden, NotServing."""
        connection.request("GET", f"{self._root}/models")
        answer = _answer(connection)
        name, value = (text.decode() for text in PRODUCT)
        if answer.headers.get(name) == value:
            return
        if answer.status in NOT_RUNNING:
            raise NotServing(self.name)
        raise Error(
            Kind.FORBIDDEN,
            f"What answers at {self.name} is not a Tunewarden server, or one of an older version. It got neither the key nor"
            " the request. Set TUNEWARDEN_URL to a server's address, such as http://127.0.0.1:8800/v1.",
        )

    def _no_address(self) -> Error:
        said = f"{self.name} is not a server's URL. Use one such as http://127.0.0.1:8800/v1."
        return Error(Kind.INVALID, said)


def _answer(connection: HTTPConnection, into: Callable[[bytes], object] | None = None) -> Answer:
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    if into is None or response.status != 200:
        body = response.read(ANSWER_BYTES_MAX)
    else:
        body = b""
        while piece := response.read1(CHUNK_BYTES):  # what has come, also of a slow answer
            into(piece)
    # What is cut short ends like what is whole, where a bound is given; or in its head, before the length.
    has_no_length = response.length is None and not response.chunked
    is_cut_in_head = response.status == 200 and has_no_length and not body
    if response.length or (is_cut_in_head and into is None):
        raise IncompleteRead(body, response.length)
    return Answer(response.status, headers, body)


def _refuse_openai(host: str) -> None:
    name = host.rstrip(".")
    if any(name == one or name.endswith(f".{one}") for one in OPENAI_HOSTS):
        raise Error(
            Kind.FORBIDDEN,
            f"{host} is OpenAI's: this command asks a Tunewarden server only, and nothing was sent. Set TUNEWARDEN_URL"
            " and TUNEWARDEN_API_KEY to a server of yours, or give its data directory with --data.",
        )

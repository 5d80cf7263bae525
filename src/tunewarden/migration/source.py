"""Client of the source server: GET, and requests to its models; DELETE for `delete-source` (`source_deletion`) alone.

Every request is patient: a cut connection, 429 and 5xx are tried again (`waiting`). What it cannot get is an Error
without the source's own words, which may quote a key or a prompt.
"""

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from threading import Lock
from typing import Any
from weakref import WeakSet

from tunewarden import __version__
from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.migration import values
from tunewarden.migration.addresses import Address, Query
from tunewarden.migration.waiting import (
    RATE_LIMITED,
    USED_UP,
    Patience,
    Pauses,
    asked_seconds,
    is_retried,
)

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ANSWER_SECONDS = 600.0
CONNECT_SECONDS = 30.0
PAGE_SIZE = 100
Object = dict[str, Any]
NO_QUERY: Query = {}
NO_HEADERS: Mapping[str, str] = {}
# A server of ours gives a retry of a deletion its first answer again.
RETRY_COUNT = "x-stainless-retry-count"
LOG_KEY = (".well-known", "tunewarden-log-key")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    # How often it had been asked before: then the source may have done long ago what it is asked for.
    retries: int = 0

    @property
    def object(self) -> Object | None:
        """The body as a JSON object; None if it is none."""
        try:
            read = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return read if isinstance(read, dict) else None

    @property
    def problem(self) -> Object:
        """The `error` object of an error response; empty if there is none."""
        error = (self.object or {}).get("error")
        return error if isinstance(error, dict) else {}


class Source:
    """One server, with one key. Thread-safe."""

    def __init__(
        self, address: Address, key: str, *, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self.address = address
        self.pauses = Pauses(clock, say)
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._guard = Lock()
        self._headers = {
            **address.headers(key),
            "accept-encoding": "identity",
            "user-agent": f"tunewarden/{__version__}",
        }

    def get(self, *segments: str, **query: str | int | None) -> Object:
        """Return the object at a path. Raises Error."""
        return self._read(self.ask("GET", segments, query))

    def find(self, *segments: str) -> Object | None:
        """Return the object at a path, or None if there is none. Raises Error."""
        reply = self.ask("GET", segments)
        return None if reply.status in {404, 410} else self._read(reply)

    def listed(self, *segments: str, limit: int = PAGE_SIZE) -> Iterator[Object]:
        """Yield the objects of a list, page by page. Raises Error."""
        after: str | None = None
        seen: set[str] = set()
        while True:
            page = self.get(*segments, limit=limit, after=after)
            objects = self._objects(page)
            fresh = {one["id"]: one for one in objects if one["id"] not in seen}
            yield from fresh.values()
            # Pages that lead back to what was read would never end.
            if not page.get("has_more") or not fresh:
                return
            seen |= fresh.keys()
            after = objects[-1]["id"]

    def everything(self, *segments: str) -> list[Object]:
        """Return a list without pagination. Raises Error."""
        return self._objects(self.get(*segments))

    def log_name(self) -> str | None:
        """Return the name of its deletion log; None if it is no Tunewarden server, or a proxy hides the log's key."""
        at_root = copy(self)
        at_root.address = replace(self.address, root=self.address.root.removesuffix("/v1"))
        headers = at_root.ask("GET", LOG_KEY).headers
        return headers.get("tunewarden-log-vkey", "").partition("+")[0] or None

    def chat(self, model: str, body: Object) -> Reply:
        """Send a request to a model; return its response, even an error. Raises Error(UNAVAILABLE) without one."""
        return self.ask("POST", self.address.chat(model), body=json.dumps(body).encode())

    def ask(
        self,
        method: str,
        segments: Sequence[str],
        query: Query = NO_QUERY,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Reply:
        """Return the final response, after retries. Raises Error(UNAVAILABLE), Error(QUOTA_EXCEEDED)."""
        patience = Patience(self.pauses)
        retries = -1
        while True:
            self.pauses.wait()
            retries += 1
            sent = {**headers, RETRY_COUNT: str(retries)} if retries else headers
            try:
                connection, response = self.begin(method, segments, query, sent, body)
                try:
                    reply = Reply(response.status, _headers(response), _whole(response), retries)
                finally:
                    connection.close()
            except (OSError, HTTPException) as error:
                patience.wait(f"{self.address.url} gave no answer, or not all of it{why(error)}")
                continue
            if not is_retried(reply.status):
                return reply
            self.wait_or_refuse(reply, patience)

    def begin(
        self,
        method: str,
        segments: Sequence[str],
        query: Query,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Send a request; return its connection, to be closed, and the beginning of the answer.

        Raises OSError and HTTPException.
        """
        kind = HTTPSConnection if self.address.is_secure else HTTPConnection
        connection = kind(self.address.netloc, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(ANSWER_SECONDS)
            with self._guard:
                self._sockets.add(connection.sock)
            sent = {**self._headers, **headers}
            if body is not None:
                sent["content-type"] = "application/json"
            connection.request(method, self.address.target(segments, query), body, sent)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def disconnect(self) -> None:
        """End every request, also one that another thread is waiting for; none begins after this."""
        self.pauses.stop()
        with self._guard:
            sockets = list(self._sockets)
        for one in sockets:
            with suppress(OSError):
                # Below TLS, whose own farewell is not for another thread.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def wait_or_refuse(self, reply: Reply, patience: Patience) -> None:
        """Wait before a retry. Raises Error(QUOTA_EXCEEDED), and Error(UNAVAILABLE) after the last attempt."""
        if reply.status == RATE_LIMITED and str(reply.problem.get("code")) in USED_UP:
            raise Error(
                Kind.QUOTA_EXCEEDED,
                f"{self.address.url} says that the quota of this key's organization is used up. What is done is kept:"
                " run the command again when there is more.",
            )
        is_limit = reply.status == RATE_LIMITED
        why = "is at its rate limit" if is_limit else f"answers {reply.status}"
        patience.wait(f"{self.address.url} {why}", asked_seconds(reply.status, reply.headers))

    def refused(self, reply: Reply) -> Error:
        """Return the error for a response that is not 200."""
        name = self.address.url
        match reply.status:
            case 401:
                return Error(
                    Kind.UNAUTHENTICATED, f"{name} does not accept this key, or not for this."
                )
            case 403:
                said = f"{name} does not allow this key what the command reads. It needs to read models, files and fine-tuning, and for `record` to use models."
                return Error(Kind.FORBIDDEN, said)
            case 404 | 410:
                return Error(Kind.NOT_FOUND, f"{name} does not have what was asked for.")
        return Error(Kind.INVALID, f"{name} refuses the request (status {reply.status}).")

    def _objects(self, page: Object) -> list[Object]:
        found = page.get("data")
        if not isinstance(found, list):
            raise self.misread()
        if not all(isinstance(one, dict) and values.text(one.get("id")) for one in found):
            raise self.misread()
        return found

    def _read(self, reply: Reply) -> Object:
        if reply.status != 200:
            raise self.refused(reply)
        if reply.object is None:
            raise self.misread()
        return reply.object

    def misread(self) -> Error:
        """Return the error for what is no answer of this API."""
        return Error(Kind.INVALID, f"{self.address.url} does not answer as OpenAI's API.")


def why(error: Exception) -> str:
    """Return what the machine says of a connection, such as an unknown name or a certificate; empty if it says nothing."""
    said = error.strerror if isinstance(error, OSError) else None
    return f" ({said})" if said else ""


def _whole(response: HTTPResponse) -> bytes:
    """Return a response's body. Raises IncompleteRead if it was truncated or is too large."""
    body = response.read(ANSWER_BYTES_MAX)
    # With a limit, http.client ends a truncated body like a complete one, and a truncated head like an empty body.
    has_no_length = response.length is None and not response.chunked
    if response.length or (response.status == 200 and has_no_length and not body):
        raise IncompleteRead(body, response.length)
    return body


def _headers(response: HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}

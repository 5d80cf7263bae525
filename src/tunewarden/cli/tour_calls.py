"""The calls of a tour: HTTP to a server that has identified itself, and how each is written."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from tunewarden.errors import Error, Kind

ANSWER_SECONDS = 120.0
EVENT = b"data: "
END = b"[DONE]"
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """One response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def fields(self) -> Event:
        """Return the JSON object of the body. Raises Error(UNAVAILABLE)."""
        try:
            found: Event = json.loads(self.body)
        except ValueError as error:
            raise _no_answer(error) from error
        return found


class Calls:
    """Sends requests to a server at a URL such as `http://127.0.0.1:8800/v1`, each over a connection of its own."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self.root = f"{parts.scheme}://{parts.netloc}"
        self.path = parts.path or "/v1"
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._netloc = parts.netloc
        self._key = key

    @property
    def url(self) -> str:
        """The address that the SDK takes."""
        return f"{self.root}{self.path}"

    def send(self, method: str, path: str, fields: object = None) -> Reply:
        """Send a request below `/v1` with the key; return the response, whatever its status. Raises Error(UNAVAILABLE)."""
        with self._opened(method, self.path + path, fields, with_key=True) as response:
            return _reply(response)

    def fetch(self, path: str) -> bytes:
        """Return what anybody may read at a path of the server, without a key. Raises Error(UNAVAILABLE)."""
        with self._opened("GET", path, None, with_key=False) as response:
            reply = _reply(response)
        if reply.status != 200:
            raise Error(Kind.UNAVAILABLE, f"{self.root}{path} answers {reply.status}.")
        return reply.body

    @contextmanager
    def stream(self, path: str, fields: object) -> Iterator[Iterator[Event]]:
        """Begin an answer that streams; its events come as they are read. Raises Error(UNAVAILABLE)."""
        with self._opened("POST", self.path + path, fields, with_key=True) as response:
            yield _events(response)

    @contextmanager
    def _opened(
        self, method: str, path: str, fields: object, *, with_key: bool
    ) -> Iterator[HTTPResponse]:
        headers = {"authorization": f"Bearer {self._key}"} if with_key else {}
        body = None if fields is None else json.dumps(fields).encode()
        if body is not None:
            headers["content-type"] = "application/json"
        connection = self._kind(self._netloc, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body, headers)
            yield connection.getresponse()
        except (OSError, HTTPException) as error:
            raise _no_answer(error) from error
        finally:
            connection.close()


def _reply(response: HTTPResponse) -> Reply:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())


def _events(response: HTTPResponse) -> Iterator[Event]:
    """Yield the events of a stream up to its end, or the one object of an answer that is none."""
    if response.status != 200:
        yield _reply(response).fields()
        return
    while line := response.readline():
        if line.startswith(EVENT) and not line.startswith(EVENT + END):
            yield json.loads(line.removeprefix(EVENT))


def _no_answer(error: Exception) -> Error:
    return Error(Kind.UNAVAILABLE, f"The server gave no answer: {type(error).__name__}.")


def chat_call(fields: Mapping[str, object]) -> str:
    """Return a chat as the SDK sends it."""
    options = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"client.chat.completions.create({options})"


def curl_call(url: str, *, into: str, with_key: bool = False) -> str:
    """Return a download as curl does it."""
    header = '-H "Authorization: Bearer $KEY" ' if with_key else ""
    return f"curl -s {header}{url} -o {into}"

"""The client of all commands: HTTP to a server, or to the application in this process.

Commands use paths below `/v1`, and print the API's responses.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tunewarden import config, problems
from tunewarden.cli import data_directory, options
from tunewarden.cli.transport import Answer, Http, Request, Transport
from tunewarden.errors import Error, Kind

# How Python decodes command-line bytes that are not UTF-8.
AS_IT_CAME = "surrogateescape"
# The schema of objects: /openapi.json.
Object = dict[str, Any]
# Of a query parameter: each text of several is sent, and None is not.
Value = str | int | Sequence[str] | None
# Every paged list of the API allows it, but those of administration.
PAGE_SIZE = 1000
ADMINISTRATION_PAGE_SIZE = 100

LOG_KEY = "/.well-known/tunewarden-log-key"

# For kinds with the same status and type the first one is used. Engines' errors have their own types.
_OF_ANSWER = {wire: kind for kind, wire in reversed(problems.WIRE.items())}
_OF_STATUS = {status: kind for kind, (status, _) in reversed(problems.WIRE.items())}


@contextmanager
def opened(data: Path | None) -> Iterator["Client"]:
    """Open the server or data directory named by flags and environment. Raises Error.

    `--data` names a data directory, else the environment a server (`config.CLIENT_VARIABLES`); without either it is
    the usual data directory.
    """
    server = config.client_settings() if data is None else None
    if server is not None:
        yield Client(Http(*server))
        return
    with data_directory.opened(config.load(data=data)) as directory:
        yield Client(directory)


def administers_over_http(data: Path | None) -> bool:
    """Return whether `administering` uses the server and the admin key of the environment."""
    return data is None and config.client_settings(config.ADMIN_VARIABLES) is not None


@contextmanager
def administering(data: Path | None) -> Iterator["Client"]:
    """Open it like `opened`, with an admin key: of the environment (`config.ADMIN_VARIABLES`), or of the data directory.

    There it is of the organization that --organization names. Raises Error(INVALID) for that option elsewhere.
    """
    server = config.client_settings(config.ADMIN_VARIABLES) if data is None else None
    organization = options.chosen_organization()
    if server is not None:
        if organization is not None:
            raise Error(
                Kind.INVALID,
                "--organization is for the server's machine: give --data too. An admin key is of one organization.",
            )
        yield Client(Http(*server))
        return
    with data_directory.administered(config.load(data=data), organization) as directory:
        yield Client(directory)


class Client:
    """Sends requests with one API key. Each method raises Error with the server's message."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def is_served(self) -> bool:
        """Return whether a server is running; without one no model answers and no job continues."""
        return self._transport.is_served()

    def get(self, *path: str, **query: Value) -> Object:
        """GET an object by path segments; query parameters that are None are omitted."""
        return self._read(self.exchange(Request("GET", _path(path, query))))

    def log_name(self) -> str | None:
        """Return the name of the server's deletion log, which is random and stays; None if a proxy does not pass it on."""
        try:
            answer = self.exchange(Request("GET", LOG_KEY, is_at_root=True))
        except Error as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise
        return answer.headers.get("tunewarden-log-vkey", "").partition("+")[0] or None

    def pages(
        self, *path: str, limit: int | None, page_size: int = PAGE_SIZE, **query: Value
    ) -> Object:
        """GET a list page by page: all of it, or its first `limit` objects; return one list object."""
        found: list[Object] = []
        after, has_more = None, True
        while has_more and (limit is None or len(found) < limit):
            size = page_size if limit is None else min(page_size, limit - len(found))
            page = self.get(*path, **query, limit=size, after=after)
            found += page["data"]
            has_more = page["has_more"]
            after = page["data"][-1]["id"] if has_more else None
        first_id, last_id = (found[0]["id"], found[-1]["id"]) if found else (None, None)
        ends: Object = {"first_id": first_id, "last_id": last_id, "has_more": has_more}
        return {"object": "list", "data": found, **ends}

    def download(self, *path: str) -> bytes:
        """Return the bytes at a path."""
        return self.exchange(Request("GET", _path(path, {}))).body

    def stream(self, *path: str, into: Callable[[bytes], object], **query: Value) -> None:
        """Give the bytes at a path to `into`, piece by piece."""
        self.exchange(Request("GET", _path(path, query), into=into))

    def post(self, *path: str, fields: Object | None = None) -> Object:
        """POST JSON, or nothing, and return the response."""
        if fields is None:
            return self._read(self.exchange(Request("POST", _path(path, {}))))
        body = json.dumps(fields).encode()
        return self.send(*path, body=[body], length=len(body), content_type="application/json")

    def lines(
        self,
        method: str,
        *path: str,
        into: Callable[[bytes], object],
        fields: Object | None = None,
        headers: Mapping[str, str] | None = None,
        **query: Value,
    ) -> None:
        """Send JSON, or nothing, and give the answer to `into` as it comes."""
        body = None if fields is None else json.dumps(fields).encode()
        sent = dict(headers or {})
        if body is not None:
            sent |= {"content-type": "application/json", "content-length": str(len(body))}
        pieces = None if body is None else [body]
        self.exchange(Request(method, _path(path, query), sent, pieces, into))

    def send(self, *path: str, body: Iterable[bytes], length: int, content_type: str) -> Object:
        """POST a streamed body of `length` bytes, and return the response."""
        headers = {"content-type": content_type, "content-length": str(length)}
        return self._read(self.exchange(Request("POST", _path(path, {}), headers, body)))

    def delete(self, *path: str, if_match: str | None = None, **query: str | int | None) -> Object:
        """DELETE a path; return the response, with the id of its `deletion`."""
        headers = {} if if_match is None else {"if-match": f'"{if_match}"'}
        answer = self.exchange(Request("DELETE", _path(path, query), headers))
        return {**self._read(answer), "deletion": answer.headers.get("tunewarden-deletion")}

    def exchange(self, request: Request) -> Answer:
        """Send a request; return its response if it is 200."""
        answer = self._transport.send(request)
        if answer.status != 200:
            raise self._error(answer)
        return answer

    def _read(self, answer: Answer) -> Object:
        try:
            read: Object = json.loads(answer.body)
        except ValueError as error:
            raise self._misread() from error
        return read

    def _error(self, answer: Answer) -> Error:
        try:
            error = json.loads(answer.body)["error"]
            message, kind = str(error["message"]), str(error.get("type"))
            param, code = error.get("param"), error.get("code")
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._misread()
        usual = _OF_STATUS.get(answer.status, Kind.INVALID)
        found = _OF_ANSWER.get((answer.status, kind), usual)
        case = answer.headers.get("tunewarden-deletion-case")
        return Error(found, message, param=param, code=code, deletion_case=case)

    def _misread(self) -> Error:
        return Error(
            Kind.INVALID, f"{self._transport.name} does not answer as a Tunewarden server."
        )


def _path(segments: Iterable[str], query: Mapping[str, Value]) -> str:
    """Return a path with its query. Undecodable bytes of the command line are kept: the server refuses them."""
    path = "".join(f"/{quote(segment, safe='', errors=AS_IT_CAME)}" for segment in segments)
    chosen = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(chosen, doseq=True, errors=AS_IT_CAME)}" if chosen else path

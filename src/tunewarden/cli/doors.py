"""Two ways for a command to reach models: over HTTP to a server, or directly in a data directory.

`OPENAI_BASE_URL` and `OPENAI_API_KEY` choose the first, `--data` the second, which acts as the Owner
whose key lies in `DIR/owner.key`: whoever can read that file is the Owner. Deleting directly is safe
beside a running server: it is the same protocol, fence included.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from tunewarden import config
from tunewarden.api import views
from tunewarden.app import App, open_app
from tunewarden.artifacts.adapters import read_adapter_directory
from tunewarden.config import Config
from tunewarden.deletion import plan, records
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller
from tunewarden.ids import Prefix, mint, token
from tunewarden.registry import bases, models
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.models import Model

ANSWER_BYTES_MAX = 256 * 1024 * 1024
ANSWER_SECONDS = 120.0
CHUNK_BYTES = 1024 * 1024

DELETIONS_SHOWN = 1000

ModelObject = dict[str, Any]
DeletionObject = dict[str, Any]


class Door(Protocol):
    """What commands can do with models."""

    def models(self) -> Iterator[ModelObject]:
        """Yield every base and own model."""

    def model(self, model_id: str) -> ModelObject:
        """Return one. Raises Error(NOT_FOUND)."""

    def bring_in(self, directory: Path, base: str, suffix: str) -> ModelObject:
        """Import an adapter directory."""

    def deletion_plan(self, model_id: str) -> ModelObject:
        """Return what deleting a model would take with it. Raises Error(NOT_FOUND, FORBIDDEN)."""

    def delete(self, model_id: str) -> str:
        """Delete a model; return the deletion's id."""

    def deletions(self) -> list[DeletionObject]:
        """Return the newest deletions of the organization."""

    def deletion(self, deletion_id: str) -> DeletionObject:
        """Return one deletion. Raises Error(NOT_FOUND)."""

    def receipt(self, deletion_id: str) -> bytes:
        """Return a deletion's receipt. Raises Error(NOT_FOUND)."""


@contextmanager
def opened(data: Path | None) -> Iterator[Door]:
    """Open the door that the flags and the environment ask for. Raises Error."""
    url, key = config.client_settings()
    if data is None and url is not None:
        if not key:
            raise Error(Kind.INVALID, "Set OPENAI_API_KEY beside OPENAI_BASE_URL.")
        yield HttpDoor(url, key)
        return
    settings = config.load(data=data)
    app = open_app(settings)
    yield LocalDoor(app, _owner(app, settings))


def _owner(app: App, settings: Config) -> Caller:
    try:
        key = settings.owner_key.read_text("utf-8").strip()
    except FileNotFoundError as error:
        raise Error(
            Kind.UNAUTHENTICATED,
            f"{settings.owner_key} is not there. Set OPENAI_BASE_URL and OPENAI_API_KEY to use another key.",
        ) from error
    return keys.authenticate(app.database, key, mint(Prefix.REQUEST))


class LocalDoor:
    """The operations themselves, on a data directory of this machine."""

    def __init__(self, app: App, caller: Caller) -> None:
        self.app = app
        self.caller = caller

    def models(self) -> Iterator[ModelObject]:
        """Yield every base and own model."""
        for base in bases.list_all(self.app.database):
            yield views.base_object(base)
        for page in models.pages(self.app.database, self.caller):
            yield from map(self._shown, page)

    def model(self, model_id: str) -> ModelObject:
        """Return one. Raises Error(NOT_FOUND)."""
        if (base := bases.find(self.app.database, model_id)) is not None:
            return views.base_object(base)
        model = models.find(self.app.database, self.caller, model_id)
        if model is None:
            raise models.missing(model_id)
        return self._shown(model)

    def bring_in(self, directory: Path, base: str, suffix: str) -> ModelObject:
        """Import an adapter directory."""
        settings, weights = read_adapter_directory(directory)
        with weights:
            model = self.app.imports.bring_in(
                self.caller, base=base, suffix=suffix, config=BytesIO(settings), weights=weights
            )
        return self._shown(model)

    def deletion_plan(self, model_id: str) -> ModelObject:
        """Return what deleting a model would take with it. Raises Error(NOT_FOUND, FORBIDDEN)."""
        return views.plan_object(plan.plan(self.app.database, self.caller, model_id))

    def delete(self, model_id: str) -> str:
        """Delete a model; return the deletion's id."""
        return self.app.executor.delete(self.caller, ArtifactKind.MODEL, model_id, Attempt()).id

    def deletions(self) -> list[DeletionObject]:
        """Return the newest deletions of the organization."""
        found = records.page(
            self.app.database, self.caller.organization_id, after=None, limit=DELETIONS_SHOWN
        )
        return [views.deletion_object(deletion) for deletion in found]

    def deletion(self, deletion_id: str) -> DeletionObject:
        """Return one deletion. Raises Error(NOT_FOUND)."""
        return views.deletion_object(records.find_own(self.app.database, self.caller, deletion_id))

    def receipt(self, deletion_id: str) -> bytes:
        """Return a deletion's receipt. Raises Error(NOT_FOUND)."""
        return records.receipt_of(records.find_own(self.app.database, self.caller, deletion_id))

    def _shown(self, model: Model) -> ModelObject:
        return views.model_object(model, self.caller.organization_name)


class HttpDoor:
    """A server's API."""

    def __init__(self, url: str, key: str) -> None:
        self._url = urlsplit(url.rstrip("/"))
        self._key = key

    def models(self) -> Iterator[ModelObject]:
        """Yield every base and own model."""
        yield from self.call("GET", "/models")[0]["data"]

    def model(self, model_id: str) -> ModelObject:
        """Return one. Raises Error(NOT_FOUND)."""
        return self.call("GET", f"/models/{quote(model_id, safe='')}")[0]

    def bring_in(self, directory: Path, base: str, suffix: str) -> ModelObject:
        """Upload an adapter directory, in pieces."""
        settings, weights = read_adapter_directory(directory)
        boundary = token(40)

        def body() -> Iterator[bytes]:
            for name, value in (("base", base), ("suffix", suffix)):
                yield part(boundary, name) + value.encode() + b"\r\n"
            yield part(boundary, "adapter_config", file="adapter_config.json") + settings + b"\r\n"
            yield part(boundary, "adapter_model", file="adapter_model.safetensors")
            while chunk := weights.read(CHUNK_BYTES):
                yield chunk
            yield f"\r\n--{boundary}--\r\n".encode()

        with weights:
            return self.call(
                "POST", "/models", body(), f"multipart/form-data; boundary={boundary}"
            )[0]

    def deletion_plan(self, model_id: str) -> ModelObject:
        """Return what deleting a model would take with it. Raises Error(NOT_FOUND)."""
        return self.call("GET", f"/models/{quote(model_id, safe='')}/deletion_plan")[0]

    def delete(self, model_id: str) -> str:
        """Delete a model; return the deletion's id."""
        return self.call("DELETE", f"/models/{quote(model_id, safe='')}")[1]

    def deletions(self) -> list[DeletionObject]:
        """Return the newest deletions of the organization."""
        listed: list[DeletionObject] = self.call("GET", f"/deletions?limit={DELETIONS_SHOWN}")[0][
            "data"
        ]
        return listed

    def deletion(self, deletion_id: str) -> DeletionObject:
        """Return one deletion. Raises Error(NOT_FOUND)."""
        return self.call("GET", f"/deletions/{quote(deletion_id, safe='')}")[0]

    def receipt(self, deletion_id: str) -> bytes:
        """Return a deletion's receipt. Raises Error(NOT_FOUND)."""
        return self._exchange("GET", f"/deletions/{quote(deletion_id, safe='')}/receipt")[0]

    def answers(self, model_id: str) -> bool:
        """Tell whether the model answers a request for one token, as chat or as completion."""
        body = {"model": model_id, "max_tokens": 1}
        message = {"role": "user", "content": "Hello"}
        try:
            self.post("/chat/completions", {**body, "messages": [message]})
        except Error as error:
            if error.kind is Kind.UNAVAILABLE:
                return False
            # A base without a chat template completes all the same.
            return self._completes(body)
        return True

    def _completes(self, body: dict[str, Any]) -> bool:
        try:
            self.post("/completions", {**body, "prompt": "Hello"})
        except Error as error:
            if error.kind is Kind.UNAVAILABLE:
                return False
            raise
        return True

    def post(self, path: str, fields: dict[str, Any]) -> ModelObject:
        """Send JSON and return the JSON answer. Raises Error with the server's message."""
        body = json.dumps(fields).encode()
        return self.call("POST", path, iter([body]), "application/json", length=len(body))[0]

    def call(
        self,
        method: str,
        path: str,
        body: Iterator[bytes] | None = None,
        content_type: str = "",
        *,
        length: int | None = None,
    ) -> tuple[ModelObject, str]:
        """Return the JSON answer and the deletion it names. Raises Error with the server's message.

        `length` is that of the body, if it is known before: then a server can refuse it unread.
        """
        answer, deletion = self._exchange(method, path, body, content_type, length)
        try:
            return json.loads(answer), deletion
        except ValueError as error:
            raise self._stranger() from error

    def _exchange(
        self,
        method: str,
        path: str,
        body: Iterator[bytes] | None = None,
        content_type: str = "",
        length: int | None = None,
    ) -> tuple[bytes, str]:
        """Return the answer's bytes and the deletion it names."""
        kind = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        try:
            connection = kind(self._url.netloc, timeout=ANSWER_SECONDS)
        except HTTPException as error:
            raise Error(Kind.INVALID, f"{self._url.geturl()} is no address of a server.") from error
        headers = {"authorization": f"Bearer {self._key}"}
        if content_type:
            headers["content-type"] = content_type
        if length is not None:
            headers["content-length"] = str(length)
        try:
            # A body that is refused while it is sent breaks the pipe; the answer may be here all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self._url.path + path, body, headers)
            response = connection.getresponse()
            answer = response.read(ANSWER_BYTES_MAX)
            deletion = response.headers.get("tunewarden-deletion", "")
        except (OSError, HTTPException, ValueError) as error:
            raise Error(
                Kind.UNAVAILABLE, f"No server answers at {self._url.geturl()}. Is it running?"
            ) from error
        finally:
            connection.close()
        if response.status != 200:
            try:
                message = str(json.loads(answer)["error"]["message"])
            except (ValueError, KeyError, TypeError) as error:
                raise self._stranger() from error
            known = {404: Kind.NOT_FOUND, 503: Kind.UNAVAILABLE}
            raise Error(known.get(response.status, Kind.INVALID), message)
        return answer, deletion

    def _stranger(self) -> Error:
        return Error(
            Kind.INVALID, f"What answers at {self._url.geturl()} is not a Tunewarden server."
        )


def part(boundary: str, name: str, *, file: str | None = None) -> bytes:
    """Return the head of one part of a multipart form; a file's name may be any text."""
    escaped = (file or "").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    filename = f'; filename="{escaped}"' if file else ""
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode()
    )

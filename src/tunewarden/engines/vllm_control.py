"""Synchronous client of a vLLM with tunewarden-vllm: pushes adapters, evicts them, asks for its state."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import State, decoded, push_head
from tunewarden.engines import scratch
from tunewarden.engines.address import Address
from tunewarden.engines.eviction_answers import request_of, result_of, seen_in
from tunewarden.engines.port import Evicted
from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base
from tunewarden.registry.replicas import Replica

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ANSWER_BYTES_MAX = 4 * 1024 * 1024
CONNECT_SECONDS = 5.0
PUSH_SECONDS = 120.0
STATE_SECONDS = 10.0
BLOCK_BYTES = 1024 * 1024


class Push:
    """Sends an adapter's files, in a thread; `abort` ends it from another one."""

    def __init__(
        self, connection: HTTPConnection, path: str, directory: Path, key: dict[str, str]
    ) -> None:
        self._connection = connection
        self._path = path
        self._directory = directory
        self._key = key
        self._is_aborted = False

    def send(self) -> tuple[int, bytes]:
        """Send the files; return the response's status and body. Raises ConnectionError."""
        config = (self._directory / CONFIG).read_bytes()
        file = self._directory / WEIGHTS
        with file.open("rb") as weights, contextlib.closing(self._connection) as connection:
            size = len(push_head(0)) + len(config) + file.stat().st_size

            def body() -> Iterator[bytes]:
                yield push_head(len(config)) + config
                while block := weights.read(BLOCK_BYTES):
                    yield block

            headers = {"content-length": str(size), "content-type": "application/octet-stream"}
            try:
                connection.connect()
                connection.sock.settimeout(PUSH_SECONDS)
                if self._is_aborted:  # before there was a socket to close
                    raise ConnectionAbortedError("the push was aborted")
                connection.request("PUT", self._path, body(), headers | self._key)
                response = connection.getresponse()
                return response.status, response.read(ANSWER_BYTES_MAX)
            except (OSError, HTTPException) as error:
                raise ConnectionResetError("the push failed") from error

    def abort(self) -> None:
        """End it: whatever it waits for fails."""
        self._is_aborted = True
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)


class VllmControl:
    """Client of one vLLM; usable from any thread. `label` is its name in receipts and errors."""

    def __init__(
        self,
        base: Base,
        replica: Replica,
        key: str | None,
        scratch_directory: Path,
        label: str | None = None,
    ) -> None:
        self._base = base
        self._label = label or f"{base.name}/{replica.name}"
        self._address = Address.of_url(replica.url)
        self._key = key
        self._scratch = scratch_directory

    def new_push(self, internal_id: str, directory: Path) -> "Push":
        """Return a push of an adapter's files, not sent yet."""
        path = paths.push_path(internal_id, self._base.engine_model)
        return Push(self._connection(CONNECT_SECONDS), path, directory, self._key_header())

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        """Make vLLM abort, evict and overwrite a model. Raises Error(UNAVAILABLE) without its word that it has.

        It is not this server's process, so it is not killed: the deletion goes on until it answers, or another start
        of it does.
        """
        try:
            status, body = self._ask(
                "POST", paths.EVICTIONS, request_of(internal_id), within_seconds
            )
        except (OSError, HTTPException) as error:
            raise self._not_evicted() from error
        found = seen_in(status, body, internal_id)
        if found is None:
            raise self._not_evicted()
        scratch.erase_all_of(self._scratch, internal_id)
        return result_of(f"vllm:{self._label}", *found, loaded_by=loaded_by)

    def models(self) -> list[str]:
        """Return the internal ids of the models that it has loaded. Raises Error(UNAVAILABLE)."""
        return [name for base in self.state().bases for name in base.adapters]

    def running(self) -> int:
        """Return how many requests it runs. Raises Error(UNAVAILABLE)."""
        return max((base.running or 0 for base in self.state().bases), default=0)

    def state(self) -> State:
        """Return what it says of itself. Raises Error(UNAVAILABLE)."""
        try:
            _, body = self._ask("GET", paths.STATE, None, STATE_SECONDS)
            return decoded(body, State)
        except (OSError, HTTPException, ValueError) as error:
            raise Error(
                Kind.UNAVAILABLE,
                f"The vLLM '{self._label}' does not say what it has loaded.",
                retry_after_seconds=1,
            ) from error

    def _ask(
        self, method: str, path: str, body: bytes | None, within_seconds: float
    ) -> tuple[int, bytes]:
        with contextlib.closing(self._connection(within_seconds)) as connection:
            connection.request(method, path, body, self._key_header())
            response = connection.getresponse()
            return response.status, response.read(ANSWER_BYTES_MAX)

    def _connection(self, within_seconds: float) -> HTTPConnection:
        address = self._address
        if not address.tls:
            return HTTPConnection(address.host, address.port, timeout=within_seconds)
        return HTTPSConnection(
            address.host,
            address.port,
            timeout=within_seconds,
            context=ssl.create_default_context(),
        )

    def _key_header(self) -> dict[str, str]:
        return {} if self._key is None else {"authorization": f"Bearer {self._key}"}

    def _not_evicted(self) -> Error:
        return Error(
            Kind.UNAVAILABLE,
            f"The vLLM '{self._label}' has not evicted the model yet.",
            retry_after_seconds=1,
        )

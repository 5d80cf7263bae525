"""Synchronous client of a vLLM with tunewarden-vllm: pushes adapters, evicts them, asks for its state."""

import contextlib
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
PUSH_SECONDS = 120.0
STATE_SECONDS = 10.0
BLOCK_BYTES = 1024 * 1024


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

    def push(self, internal_id: str, directory: Path) -> tuple[int, bytes]:
        """Send an adapter's files; return the response's status and body. Raises ConnectionError."""
        config = (directory / CONFIG).read_bytes()
        with (directory / WEIGHTS).open("rb") as weights:
            size = len(push_head(0)) + len(config) + (directory / WEIGHTS).stat().st_size

            def body() -> Iterator[bytes]:
                yield push_head(len(config)) + config
                while block := weights.read(BLOCK_BYTES):
                    yield block

            path = paths.push_path(internal_id, self._base.engine_model)
            headers = {"content-length": str(size), "content-type": "application/octet-stream"}
            try:
                return self._ask("PUT", path, body(), headers, PUSH_SECONDS)
            except (OSError, HTTPException) as error:
                raise ConnectionResetError("the push failed") from error

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        """Make vLLM abort, evict and overwrite a model. Raises Error(UNAVAILABLE) without its word that it has.

        It is not this server's process, so it is not killed: the deletion goes on until it answers, or another start
        of it does.
        """
        try:
            status, body = self._ask(
                "POST", paths.EVICTIONS, request_of(internal_id), {}, within_seconds
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
        try:
            _, body = self._ask("GET", paths.STATE, None, {}, STATE_SECONDS)
            return [name for base in decoded(body, State).bases for name in base.adapters]
        except (OSError, HTTPException, ValueError) as error:
            raise Error(
                Kind.UNAVAILABLE,
                f"The vLLM '{self._label}' does not say what it has loaded.",
                retry_after_seconds=1,
            ) from error

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
        within_seconds: float,
    ) -> tuple[int, bytes]:
        address = self._address
        key = {} if self._key is None else {"authorization": f"Bearer {self._key}"}
        connection = (
            HTTPSConnection(
                address.host,
                address.port,
                timeout=within_seconds,
                context=ssl.create_default_context(),
            )
            if address.tls
            else HTTPConnection(address.host, address.port, timeout=within_seconds)
        )
        with contextlib.closing(connection):
            connection.request(method, path, body, headers | key)
            response = connection.getresponse()
            return response.status, response.read(ANSWER_BYTES_MAX)

    def _not_evicted(self) -> Error:
        return Error(
            Kind.UNAVAILABLE,
            f"The vLLM '{self._label}' has not evicted the model yet.",
            retry_after_seconds=1,
        )

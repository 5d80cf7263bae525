"""Synchronous client of a vLLM with tunewarden-vllm: its lease, pushes of adapters, their eviction, its state."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import msgspec

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import (
    VERSION,
    EvictedAdapter,
    Refusal,
    Renewal,
    Renewed,
    State,
    decoded,
    push_head,
    version_in,
)
from tunewarden.engines.address import Address
from tunewarden.engines.eviction_answers import request_of, seen_in
from tunewarden.engines.port import LeaseRefused, Residents, Seen
from tunewarden.engines.tls import ClientTls
from tunewarden.errors import Error, Kind
from tunewarden.registry.bases import Base
from tunewarden.registry.members import Member
from tunewarden.registry.replicas import Replica

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ANSWER_BYTES_MAX = 4 * 1024 * 1024
CONNECT_SECONDS = 5.0
PUSH_SECONDS = 120.0
STATE_SECONDS = 10.0
# All adapters are overwritten first.
BEGIN_SECONDS = 60.0
BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Answer:
    """`certificate` is the SHA-256 of the engine's, empty without TLS."""

    status: int
    body: bytes
    certificate: str


class Push:
    """Sends an adapter's files, in a thread; `abort` ends it from another one."""

    def __init__(
        self,
        connection: HTTPConnection,
        path: str,
        directory: Path,
        *,
        headers: dict[str, str],
        only: str,
    ) -> None:
        """`only`: the fingerprint of the certificate that the files may be sent to."""
        self._connection = connection
        self._path = path
        self._directory = directory
        self._headers = headers
        self._only = only
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
                if _fingerprint(connection) != self._only:
                    raise ConnectionRefusedError("another engine answers at this address")
                connection.request("PUT", self._path, body(), headers | self._headers)
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
        self, base: Base, replica: Replica, key: str | None, tls: ClientTls, label: str
    ) -> None:
        self.label = label
        self._base = base
        self._address = Address.of_url(replica.url)
        self._key = key
        self._tls = tls

    def new_push(self, member: Member, internal_id: str, directory: Path) -> Push:
        """Return a push of an adapter's files to a member, not sent yet."""
        path = paths.push_path(internal_id, self._base.engine_model, member.id)
        headers = self._key_header()
        connection = self._connection(CONNECT_SECONDS)
        return Push(connection, path, directory, headers=headers, only=member.certificate)

    def evict(
        self, internal_id: str, *, within_seconds: float
    ) -> tuple[EvictedAdapter, Seen] | None:
        """Make it abort, evict and overwrite a model; return its result. None without proof of it."""
        try:
            answer = self._ask("POST", paths.EVICTIONS, request_of(internal_id), within_seconds)
        except (OSError, HTTPException):
            return None
        found = seen_in(answer.status, answer.body, internal_id)
        return found and (found[0], Seen(found[1], answer.certificate))

    def models(self) -> list[str]:
        """Return the internal ids of the models that it has loaded. Raises Error(UNAVAILABLE)."""
        return [name for base in self._state()[0].bases for name in base.adapters]

    def residents(self, *, within_seconds: float) -> Residents:
        """Return the models that it has loaded, and those on their way. Raises Error(UNAVAILABLE, MISCONFIGURED)."""
        bases = self._state(within_seconds)[0].bases
        return Residents(
            frozenset(name for base in bases for name in base.adapters),
            frozenset(name for base in bases for name in base.loading or ()),
        )

    def running(self) -> int:
        """Return how many requests it runs. Raises Error(UNAVAILABLE)."""
        return max((base.running or 0 for base in self._state()[0].bases), default=0)

    def seen(self, within_seconds: float = STATE_SECONDS) -> Seen:
        """Return which engine answers. Raises Error(UNAVAILABLE); Error(MISCONFIGURED) for another version."""
        state, certificate = self._state(within_seconds)
        return Seen(state.incarnation, certificate)

    def renew(self, renewal: Renewal) -> tuple[str, Seen]:
        """Send a renewal; return the nonce, and which engine answered. Raises Error(UNAVAILABLE), LeaseRefused."""
        seconds = BEGIN_SECONDS if renewal.begins else renewal.seconds
        try:
            answer = self._ask("POST", paths.LEASE, msgspec.json.encode(renewal), seconds)
            if is_without_lease(answer.status, answer.body):
                raise LeaseRefused
            if answer.status != 200 or version_in(answer.body) != VERSION:
                raise self._silent()
            renewed = decoded(answer.body, Renewed)
        except (OSError, HTTPException, ValueError) as error:
            raise self._silent() from error
        return renewed.nonce, Seen(renewed.incarnation, answer.certificate)

    def _state(self, within_seconds: float = STATE_SECONDS) -> tuple[State, str]:
        try:
            answer = self._ask("GET", paths.STATE, None, within_seconds)
            spoken = version_in(answer.body)
            if answer.status != 200 or not spoken:
                raise self._silent()
            if spoken != VERSION:
                raise Error(
                    Kind.MISCONFIGURED,
                    f"The vLLM '{self.label}' speaks version {spoken} of the engine protocol, this server version"
                    f" {VERSION}: it serves no fine-tuned models. Install the same release of tunewarden and"
                    " tunewarden-vllm.",
                    code="engine_version",
                )
            return decoded(answer.body, State), answer.certificate
        except (OSError, HTTPException, ValueError) as error:
            raise self._silent() from error

    def _ask(self, method: str, path: str, body: bytes | None, within_seconds: float) -> _Answer:
        """Send a request. Raises OSError, HTTPException."""
        with contextlib.closing(self._connection(within_seconds)) as connection:
            connection.connect()
            certificate = _fingerprint(connection)
            connection.request(method, path, body, self._key_header())
            response = connection.getresponse()
            return _Answer(response.status, response.read(ANSWER_BYTES_MAX), certificate)

    def _connection(self, within_seconds: float) -> HTTPConnection:
        address = self._address
        if not address.tls:
            return HTTPConnection(address.host, address.port, timeout=within_seconds)
        context = self._tls.context()
        return HTTPSConnection(address.host, address.port, timeout=within_seconds, context=context)

    def _key_header(self) -> dict[str, str]:
        return {} if self._key is None else {"authorization": f"Bearer {self._key}"}

    def _silent(self) -> Error:
        return Error(
            Kind.UNAVAILABLE,
            f"The vLLM '{self.label}' does not answer, or not as tunewarden-vllm does.",
            retry_after_seconds=1,
        )


def is_without_lease(status: int, body: bytes) -> bool:
    """Return whether an engine refuses because it does not have the lease that was named."""
    if status != 503:
        return False
    try:
        return decoded(body, Refusal).error.code == Code.NO_LEASE
    except ValueError:
        return False


def _fingerprint(connection: HTTPConnection) -> str:
    if not isinstance(connection, HTTPSConnection):
        return ""
    certificate = connection.sock.getpeercert(binary_form=True)
    return sha256(certificate).hexdigest() if certificate else ""

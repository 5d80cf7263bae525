"""Synchronous client of the embedded engine's operations: for deletion (D5) and the runner."""

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec

from tunewarden import processes
from tunewarden.clock import Clock
from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import (
    EVICTIONS_MAX,
    VERSION,
    EvictedAdapter,
    NewBase,
    Refusal,
    State,
    decoded,
    version_in,
)
from tunewarden.engines import scratch
from tunewarden.engines.eviction_answers import all_seen_in, request_of, result_of, without_it
from tunewarden.engines.port import EngineControl, Evicted, Eviction, ToEvict
from tunewarden.errors import Error, Kind
from tunewarden.pulse import LOOK_SECONDS, SUFFIX, Pulse

ANSWER_BYTES_MAX = 4 * 1024 * 1024
CALL_SECONDS = 120.0  # loading a large base is slow
DEATH_SECONDS = 5.0
NAME = "embedded"


class EngineVerbs(EngineControl):
    """Client of the embedded engine for deletion and the runner; usable from any process."""

    def __init__(
        self,
        socket_path: Path,
        scratch_directory: Path,
        clock: Clock,
        *,
        alive_seconds: float = 0.0,
    ) -> None:
        """`alive_seconds` is the timeout for an engine that is alive, if longer than an eviction's own."""
        self._socket_path = socket_path
        self._scratch = scratch_directory
        self._clock = clock
        self._alive_seconds = alive_seconds

    def bases(self, *, within_seconds: float = CALL_SECONDS) -> set[str]:
        """Return the names of the engine's bases.

        Raises OSError, ValueError; Error(MISCONFIGURED) for an engine of another version.
        """
        return {base.name for base in self._state(within_seconds).bases}

    def models(self) -> list[str]:
        """Return the internal ids of the models that the engine has loaded; none without an engine."""
        try:
            state = self._state()
        except (FileNotFoundError, ConnectionRefusedError):
            return []
        return [name for base in state.bases for name in base.adapters]

    def load_base(self, name: str, path: str) -> None:
        """Load a base. Raises Error(INVALID) if it cannot be served."""
        self._call("POST", paths.BASES, NewBase(name, path))

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        """Make the engine abort, evict and overwrite a model; kill an engine that does not answer.

        Afterwards the scratch directory is clean too: plaintext files of killed workers are removed.
        """
        one = ToEvict(internal_id, loaded_by)
        return self.evict_many([one], within_seconds=within_seconds)[0]

    def evict_many(self, models: Sequence[ToEvict], *, within_seconds: float) -> list[Evicted]:
        """Like `evict`, by one request for EVICTIONS_MAX of them: without proof for one, the engine is killed for all."""
        evicted = [
            one
            for start in range(0, len(models), EVICTIONS_MAX)
            for one in self._evict(models[start : start + EVICTIONS_MAX], within_seconds)
        ]
        scratch.erase_all_of(self._scratch, [one.internal_id for one in models])
        return evicted

    def _evict(self, models: Sequence[ToEvict], within_seconds: float) -> list[Evicted]:
        connection = _UnixConnection(str(self._socket_path), within_seconds)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            # No process listens, so none holds weights; a later one starts without adapters.
            return [without_it(NAME, None, loaded_by=one.loaded_by) for one in models]
        except OSError as error:
            # It hangs and its backlog is full: identify it by its pid file only.
            return [self._kill_by_note(error)] * len(models)
        try:
            found = self._ask(connection, [one.internal_id for one in models], within_seconds)
            if found is not None:
                results, incarnation = found
                return [
                    result_of(NAME, seen, incarnation, loaded_by=one.loaded_by)
                    for one, seen in zip(models, results, strict=True)
                ]
            if connection.kill_peer():
                return [Evicted(NAME, Eviction.RESTARTED, aborted=0)] * len(models)
            raise _not_evicted()
        finally:
            connection.close()
            connection.release_peer()

    def _ask(
        self, connection: "_UnixConnection", internal_ids: Sequence[str], within_seconds: float
    ) -> tuple[list[EvictedAdapter], str] | None:
        """Request the evictions; return the engine's results, and its incarnation.

        None without proof: no response in time, or one that proves nothing.
        """
        try:
            connection.request("POST", paths.EVICTIONS, request_of(*internal_ids))
            if not self._answers(connection, within_seconds):
                return None
            response = connection.getresponse()
            body = response.read(ANSWER_BYTES_MAX)
        except (OSError, HTTPException):
            return None
        return all_seen_in(response.status, body, internal_ids)

    def _answers(self, connection: "_UnixConnection", within_seconds: float) -> bool:
        """Wait for the beginning of a response, with a longer timeout while the engine is alive."""
        began = self._clock.monotonic()
        deadline = began + within_seconds
        deadline_if_alive = began + max(within_seconds, self._alive_seconds)
        seen = Pulse(connection.identity, self._socket_path.with_suffix(SUFFIX), self._clock)
        with contextlib.closing(seen):
            while not select.select([connection.sock], [], [], LOOK_SECONDS)[0]:
                now, is_felt = self._clock.monotonic(), seen.is_felt()
                if now > deadline_if_alive or (now > deadline and not is_felt):
                    return False
        return True

    def _kill_by_note(self, error: OSError) -> Evicted:
        try:
            noted = self._socket_path.with_suffix(".pid").read_bytes()
        except OSError:
            raise _not_evicted() from error
        if not processes.kill(noted, within_seconds=DEATH_SECONDS):
            raise _not_evicted() from error
        return Evicted(NAME, Eviction.RESTARTED, aborted=0)

    def _state(self, within_seconds: float = CALL_SECONDS) -> State:
        """Return the engine's state. Raises OSError, ValueError, Error(MISCONFIGURED)."""
        body = self._call("GET", paths.STATE, None, within_seconds)
        spoken = version_in(body)
        if spoken != VERSION:
            raise Error(
                Kind.MISCONFIGURED,
                f"The engine speaks version {spoken} of the engine protocol, this server version {VERSION}."
                " Install the same release of Tunewarden for both, then restart both.",
                code="engine_version",
            )
        return decoded(body, State)

    def _call(
        self,
        method: str,
        path: str,
        message: msgspec.Struct | None,
        within_seconds: float = CALL_SECONDS,
    ) -> bytes:
        """Return a response's body. Raises OSError, ValueError; Error(INVALID) for a refusal."""
        connection = _UnixConnection(str(self._socket_path), within_seconds)
        try:
            sent = None if message is None else msgspec.json.encode(message)
            connection.request(method, path, sent)
            response = connection.getresponse()
            body = response.read(ANSWER_BYTES_MAX)
        finally:
            connection.close()
            connection.release_peer()
        if response.status != 200:
            problem = decoded(body, Refusal).error
            raise Error(Kind.INVALID, problem.message, code=problem.code)
        return body


class _UnixConnection(HTTPConnection):
    """http.client over a unix socket, with a pidfd of the listening process (SO_PEERCRED)."""

    peer: int | None = None  # a pidfd, immune to pid reuse
    identity = b""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect. The kernel accepts even for a stopped listener, so its process is known."""
        if self.sock is not None:
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel waits for a full backlog only if the socket blocks (unix(7)).
        seconds, rest = divmod(self.timeout or 0, 1)
        wait = struct.pack("ll", int(seconds), int(rest * 1_000_000))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        self.sock.connect(self._path)
        self.sock.settimeout(self.timeout)
        credentials = self.sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        pid = struct.unpack("3i", credentials)[0]
        self.identity = processes.identity(pid)
        with contextlib.suppress(ProcessLookupError):
            self.peer = os.pidfd_open(pid)

    def kill_peer(self) -> bool:
        """SIGKILL the peer process, once; True when it has ended."""
        if self.peer is None:
            return True  # It ended before a pidfd could be opened.
        try:
            signal.pidfd_send_signal(self.peer, signal.SIGKILL)
            return bool(select.select([self.peer], [], [], DEATH_SECONDS)[0])
        except ProcessLookupError:
            return True

    def release_peer(self) -> None:
        """Close the pidfd."""
        if self.peer is not None:
            os.close(self.peer)
            self.peer = None


def _not_evicted() -> Error:
    return Error(
        Kind.UNAVAILABLE, "The engine has not evicted the model yet.", retry_after_seconds=1
    )

"""The embedded engine's verbs, synchronous: for deletion (D5) and for the runner."""

import contextlib
import json
import os
import select
import signal
import socket
import struct
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from tunewarden import processes
from tunewarden.errors import Error, Kind
from tunewarden.serving import scratch
from tunewarden.serving.engine import Evicted, Eviction

ANSWER_BYTES_MAX = 4 * 1024 * 1024
CALL_SECONDS = 120.0  # loading a large base takes its time
DEATH_SECONDS = 5.0
NAME = "embedded"


class EngineVerbs:
    """The embedded engine as deletion and the runner see it, from whatever process they are in."""

    def __init__(self, socket_path: Path, scratch_directory: Path) -> None:
        self._socket_path = socket_path
        self._scratch = scratch_directory

    def bases(self, *, within_seconds: float = CALL_SECONDS) -> set[str]:
        """Return the names of the bases that the engine has. Raises OSError, ValueError."""
        state = self._call("GET", "/engine/state", None, within_seconds)
        return {str(base["name"]) for base in state["bases"]}

    def models(self) -> list[str]:
        """Return the internal ids of the models that the engine has loaded; none without an engine."""
        try:
            state = self._call("GET", "/engine/state", None)
        except (FileNotFoundError, ConnectionRefusedError):
            return []
        return [str(name) for base in state["bases"] for name in base["adapters"]]

    def pid(self) -> int | None:
        """Return the engine's process id; None without an engine."""
        try:
            return int(self._call("GET", "/engine/state", None)["pid"])
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    def load_base(self, name: str, path: str) -> None:
        """Make the engine load a base. Raises Error(INVALID) for one that it cannot serve."""
        self._call("POST", "/engine/bases", {"name": name, "path": path})

    def evict(self, internal_id: str, *, within_seconds: float) -> Evicted:
        """Make the engine abort, forget and overwrite a model; kill an engine that does not answer.

        Afterwards nothing lies on the way to it: what a killed worker unsealed there is removed.
        """
        evicted = self._evict(internal_id, within_seconds)
        scratch.erase_all_of(self._scratch, internal_id)
        return evicted

    def _evict(self, internal_id: str, within_seconds: float) -> Evicted:
        connection = _UnixConnection(str(self._socket_path), within_seconds)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            # No process listens, so none holds weights; one that starts later has no adapters.
            return Evicted(NAME, Eviction.NOT_RUNNING, aborted=0, zeroed=False)
        except OSError as error:
            # It hangs, and its queue of connections is full: it is known by its note alone.
            return self._kill_by_note(error)
        try:
            aborted = _ask(connection, internal_id)
            if aborted is not None:
                return Evicted(NAME, Eviction.EVICTED, aborted=aborted, zeroed=True)
            if connection.kill_peer():
                return Evicted(NAME, Eviction.RESTARTED, aborted=0, zeroed=False)
            raise _not_evicted()
        finally:
            connection.close()
            connection.release_peer()

    def _kill_by_note(self, error: OSError) -> Evicted:
        try:
            noted = self._socket_path.with_suffix(".pid").read_bytes()
        except OSError:
            raise _not_evicted() from error
        if not processes.kill(noted, within_seconds=DEATH_SECONDS):
            raise _not_evicted() from error
        return Evicted(NAME, Eviction.RESTARTED, aborted=0, zeroed=False)

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, str] | None,
        within_seconds: float = CALL_SECONDS,
    ) -> Any:
        connection = _UnixConnection(str(self._socket_path), within_seconds)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = json.loads(response.read(ANSWER_BYTES_MAX))
        finally:
            connection.close()
            connection.release_peer()
        if response.status != 200:
            raise Error(
                Kind.INVALID, str(answer["error"]["message"]), code=answer["error"].get("code")
            )
        return answer


def _ask(connection: "_UnixConnection", internal_id: str) -> int | None:
    """Ask for eviction; return how many requests were aborted, None without a proper answer in time."""
    try:
        connection.request("DELETE", f"/engine/adapters/{internal_id}")
        response = connection.getresponse()
        body = json.loads(response.read(ANSWER_BYTES_MAX))
        return int(body["aborted"]) if response.status == 200 and body["zeroed"] is True else None
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None


class _UnixConnection(HTTPConnection):
    """http.client over a unix socket, with a hold on the process that listens (SO_PEERCRED)."""

    peer: int | None = None  # a pidfd: it names one process for good

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect; a listener that is stopped accepts all the same, and its process is known."""
        if self.sock is not None:
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel waits for room in a full queue only if the socket blocks (unix(7)).
        seconds, rest = divmod(self.timeout or 0, 1)
        wait = struct.pack("ll", int(seconds), int(rest * 1_000_000))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        self.sock.connect(self._path)
        self.sock.settimeout(self.timeout)
        credentials = self.sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        with contextlib.suppress(ProcessLookupError):
            self.peer = os.pidfd_open(struct.unpack("3i", credentials)[0])

    def kill_peer(self) -> bool:
        """SIGKILL the process that was connected to, once; true when it has ended."""
        if self.peer is None:
            return True  # It ended before it could be held on to.
        try:
            signal.pidfd_send_signal(self.peer, signal.SIGKILL)
            return bool(select.select([self.peer], [], [], DEATH_SECONDS)[0])
        except ProcessLookupError:
            return True

    def release_peer(self) -> None:
        """Let go of the process."""
        if self.peer is not None:
            os.close(self.peer)
            self.peer = None


def _not_evicted() -> Error:
    return Error(
        Kind.UNAVAILABLE, "The engine has not let go of the model yet.", retry_after_seconds=1
    )

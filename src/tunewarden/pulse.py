"""Liveness check: tells a busy process from a hung one before a shared process is killed.

A process answers pings on a separate thread, whatever its event loop does. A long call that holds the
GIL blocks that thread too, so consumed CPU time counts as an answer. A stopped
or frozen process shows neither.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from tunewarden import processes
from tunewarden.clock import Clock

SUFFIX = ".ping"
ANSWER = b"1"
BACKLOG = 16
# Poll interval, and how long a positive result is valid.
LOOK_SECONDS = 0.05
FELT_SECONDS = 0.5


def answer(path: Path) -> None:
    """Answer pings on a unix socket, on a daemon thread, until the process ends."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(path) as name:
        previous = os.umask(0o177)
        try:
            listener.bind(name)
        finally:
            os.umask(previous)
    listener.listen(BACKLOG)
    threading.Thread(target=_answer_all, args=(listener,), name="pings", daemon=True).start()


def _answer_all(listener: socket.socket) -> None:
    while True:
        with contextlib.suppress(OSError):  # the client has disconnected
            asking, _ = listener.accept()
            with asking:
                asking.send(ANSWER)


class Pulse:
    """Polls the liveness of one process. Call `is_felt` repeatedly; close it afterwards."""

    def __init__(self, identity: bytes, path: Path, clock: Clock) -> None:
        self._identity = identity
        self._path = path
        self._clock = clock
        self._socket: socket.socket | None = None
        self._looked_at = float("-inf")
        self._felt_at = float("-inf")
        self._used = processes.time_used(identity)

    def is_felt(self) -> bool:
        """Return whether the process answered or used CPU time within FELT_SECONDS. Does not block."""
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            used = processes.time_used(self._identity)
            if self._has_answered() or used > self._used:
                self._felt_at = now
            self._used = used
        return now - self._felt_at < FELT_SECONDS

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _has_answered(self) -> bool:
        """Return whether the last ping was answered; if so, send another."""
        if self._socket is None:
            self._ask()
            return False
        try:
            has_answered = self._socket.recv(len(ANSWER)) == ANSWER
        except BlockingIOError:
            return False
        except OSError:
            has_answered = False
        self.close()
        return has_answered

    def _ask(self) -> None:
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        asking.settimeout(0)
        try:
            with _short(self._path) as name:
                asking.connect(name)
        except OSError:
            asking.close()  # No listener, or its backlog is full: retry later.
        else:
            self._socket = asking


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a name of the path that fits into a socket's address (108 bytes), however long it is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)

"""Kernel byte-range locks that belong to an open file (OFD locks, fcntl(2)).

The kernel drops them when the file's last descriptor closes, so a dead process holds none; no
clock is involved. A descriptor is never inherited (O_CLOEXEC), because a child that shared the open
file would keep its locks. Local file systems only, like SQLite's WAL.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewarden.errors import Error, Kind

F_OFD_GETLK = 36
F_OFD_SETLK = 37
# Less than what a deletion may take, more than what any holder needs that is not frozen.
WAIT_SECONDS = 3.0
POLL_SECONDS = 0.001


class ByteLocks:
    """One lock file, opened once: locks on its bytes that other open files of it can see."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags | (os.O_CREAT if create else 0), 0o600)

    def try_shared(self, offset: int) -> bool:
        """Take a shared lock on one byte; False if somebody holds it exclusively."""
        return self._set(fcntl.F_RDLCK, offset)

    def try_exclusive(self, offset: int) -> bool:
        """Take an exclusive lock on one byte; False if somebody else holds it."""
        return self._set(fcntl.F_WRLCK, offset)

    def is_held_exclusively(self, offset: int) -> bool:
        """Tell whether somebody else holds one byte exclusively, without ever taking it."""
        request = _flock(fcntl.F_RDLCK, offset)
        kind = struct.unpack_from("h", fcntl.fcntl(self._fd, F_OFD_GETLK, request))[0]
        return bool(kind == fcntl.F_WRLCK)

    def release(self, offset: int) -> None:
        """Let go of one byte."""
        self._set(fcntl.F_UNLCK, offset)

    def write(self, content: bytes) -> None:
        """Replace what the file says; its content has nothing to do with its locks."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, content, 0)

    def fileno(self) -> int:
        """Return the descriptor: a child that is given it shares the locks for as long as it lives."""
        return self._fd

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._fd)

    def _set(self, kind: int, offset: int) -> bool:
        try:
            fcntl.fcntl(self._fd, F_OFD_SETLK, _flock(kind, offset))
        except (BlockingIOError, PermissionError):
            return False
        return True


def _flock(kind: int, offset: int) -> bytes:
    # struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks).
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)


@contextmanager
def exclusive(path: Path, within_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold a whole lock file exclusively, against all other threads and processes.

    Bounded, because a holder may be frozen (I13). Raises Error(UNAVAILABLE) when it holds on.
    """
    locks = ByteLocks(path)
    try:
        _wait(locks, within_seconds)
        try:
            yield
        finally:
            # Closing would not do: a process forked meanwhile shares the open file.
            locks.release(0)
    finally:
        locks.close()


def _wait(locks: ByteLocks, within_seconds: float) -> None:
    pause = threading.Event()  # never set
    # Tries are counted, not seconds: time in which we were frozen ourselves does not count.
    for _ in range(max(1, round(within_seconds / POLL_SECONDS))):
        if locks.try_exclusive(0):
            return
        pause.wait(POLL_SECONDS)
    raise Error(
        Kind.UNAVAILABLE,
        "Another process of the server holds on to its storage; try again.",
        code="storage_busy",
        retry_after_seconds=1,
    )

"""Kernel byte-range locks that belong to an open file (OFD locks, fcntl(2)).

The kernel drops them when the file's last descriptor closes, so a dead process holds none; no
clock is involved. A descriptor is never inherited (O_CLOEXEC), because a child that shared the open
file would keep its locks. Local file systems only, like SQLite's WAL.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

F_OFD_SETLK = 37
F_OFD_SETLKW = 38


class ByteLocks:
    """One lock file, opened once: locks on its bytes that other open files of it can see."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)

    def try_shared(self, offset: int) -> bool:
        """Take a shared lock on one byte; False if somebody holds it exclusively."""
        return self._set(fcntl.F_RDLCK, offset, F_OFD_SETLK)

    def try_exclusive(self, offset: int) -> bool:
        """Take an exclusive lock on one byte; False if somebody else holds it."""
        return self._set(fcntl.F_WRLCK, offset, F_OFD_SETLK)

    def wait_exclusive(self, offset: int) -> None:
        """Take an exclusive lock on one byte as soon as nobody else holds it."""
        self._set(fcntl.F_WRLCK, offset, F_OFD_SETLKW)

    def release(self, offset: int) -> None:
        """Let go of one byte."""
        self._set(fcntl.F_UNLCK, offset, F_OFD_SETLK)

    def write(self, content: bytes) -> None:
        """Replace what the file says; its content has nothing to do with its locks."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, content, 0)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._fd)

    def _set(self, kind: int, offset: int, command: int) -> bool:
        # struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks).
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)
        try:
            fcntl.fcntl(self._fd, command, request)
        except (BlockingIOError, PermissionError):
            return False
        return True


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a whole lock file exclusively; waits for whoever holds it now."""
    locks = ByteLocks(path)
    try:
        locks.wait_exclusive(0)
        yield
    finally:
        locks.close()

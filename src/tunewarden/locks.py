"""Kernel byte-range locks that belong to an open file (OFD locks, fcntl(2)).

The kernel drops them when the file's last descriptor closes, so a dead process holds none; no
clock is involved. A descriptor is never inherited (O_CLOEXEC), because a child that shared the open
file would keep its locks. Local file systems only, like SQLite's WAL.
"""

import _thread
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
F_OFD_SETLKW = 38
# Less than a deletion's timeout, more than any holder needs unless it is frozen.
WAIT_SECONDS = 3.0
LOOK_SECONDS = 0.05
CONTENT_BYTES_MAX = 4096


class ByteLocks:
    """One open lock file: byte locks that conflict with those of other open files of it."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags | (os.O_CREAT if create else 0), 0o600)

    def try_shared(self, offset: int) -> bool:
        """Take a shared lock on one byte; False if another holds it exclusively."""
        return self._set(fcntl.F_RDLCK, offset)

    def try_exclusive(self, offset: int) -> bool:
        """Take an exclusive lock on one byte; False if another holds it."""
        return self._set(fcntl.F_WRLCK, offset)

    def wait_exclusive(self, offset: int) -> None:
        """Take an exclusive lock on one byte, without a timeout: the kernel queues waiters."""
        fcntl.fcntl(self._fd, F_OFD_SETLKW, _flock(fcntl.F_WRLCK, offset))

    def is_held_exclusively(self, offset: int) -> bool:
        """Return whether another holds one byte exclusively, without taking it (F_OFD_GETLK)."""
        request = _flock(fcntl.F_RDLCK, offset)
        kind = struct.unpack_from("h", fcntl.fcntl(self._fd, F_OFD_GETLK, request))[0]
        return bool(kind == fcntl.F_WRLCK)

    def is_held(self, offset: int) -> bool:
        """Return whether another holds one byte in any way, without taking it (F_OFD_GETLK)."""
        request = _flock(fcntl.F_WRLCK, offset)
        kind = struct.unpack_from("h", fcntl.fcntl(self._fd, F_OFD_GETLK, request))[0]
        return bool(kind != fcntl.F_UNLCK)

    def release(self, offset: int) -> None:
        """Release one byte."""
        self._set(fcntl.F_UNLCK, offset)

    def write(self, content: bytes) -> None:
        """Replace the file's content, which is independent of its locks."""
        # Write, then truncate: within its old length a file needs no free space.
        os.pwrite(self._fd, content, 0)
        os.ftruncate(self._fd, len(content))

    def read(self) -> bytes:
        """Return the file's content, even if it was renamed or unlinked."""
        return os.pread(self._fd, CONTENT_BYTES_MAX, 0)

    def fileno(self) -> int:
        """Return the descriptor: a child that inherits it shares the locks until it ends."""
        return self._fd

    def close(self) -> None:
        """Release all locks and close the file."""
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

    The kernel wakes waiters in order. Bounded, because a holder may be frozen
    (I13). Raises Error(UNAVAILABLE) after the timeout.
    """
    held = take(path, within_seconds)
    try:
        yield
    finally:
        give_back(held)


def try_take(path: Path) -> ByteLocks | None:
    """Take a whole lock file without waiting; None if another holds it. Release with `give_back`."""
    locks = ByteLocks(path)
    if locks.try_exclusive(0):
        return locks
    locks.close()
    return None


def take(path: Path, within_seconds: float = WAIT_SECONDS) -> ByteLocks:
    """Like `exclusive`, until `give_back`."""
    held = try_take(path)
    if held is None:
        held = _Turn(path).within(within_seconds)
    if held is None:
        raise Error(
            Kind.UNAVAILABLE,
            "Another process of the server is using its storage. Please try again.",
            code="storage_busy",
            retry_after_seconds=1,
        )
    return held


def give_back(held: ByteLocks) -> None:
    """Release a whole lock file."""
    # Closing is not enough: a process forked in the meantime shares the open file.
    held.release(0)
    held.close()


class _Turn:
    """A bounded wait for a lock. The kernel's wait has no timeout, so a helper thread does the waiting."""

    def __init__(self, path: Path) -> None:
        self._locks = ByteLocks(path)
        self._guard = threading.Lock()
        self._is_over = False  # decided: the thread got the lock, or the waiter gave up
        self._failure: OSError | None = None
        self._came = threading.Lock()
        self._came.acquire()
        try:
            _thread.start_new_thread(self._stand, ())
        except BaseException:
            self._locks.close()
            raise

    def within(self, seconds: float) -> ByteLocks | None:
        """Return the lock; None after the timeout."""
        try:
            # Counts polls, not seconds: time in which this process was frozen does not count.
            for _ in range(max(1, round(seconds / LOOK_SECONDS))):
                if self._came.acquire(timeout=min(seconds, LOOK_SECONDS)):
                    break
        except BaseException:
            if not self._gives_up() and self._failure is None:
                give_back(self._locks)
            raise
        if self._gives_up():
            return None
        if self._failure is not None:
            raise self._failure
        return self._locks

    def _gives_up(self) -> bool:
        """Abandon the wait; False if the thread already has the lock."""
        with self._guard:
            was_over, self._is_over = self._is_over, True
            return not was_over

    def _stand(self) -> None:
        try:
            self._locks.wait_exclusive(0)
        except OSError as error:
            self._failure = error
        with self._guard:
            was_over, self._is_over = self._is_over, True
        if was_over or self._failure is not None:
            self._locks.close()
        self._came.release()

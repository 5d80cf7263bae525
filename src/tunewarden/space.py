"""Disk space of the data directory: the floor below which only deletions may write, and reserves (I20, D3)."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tunewarden.errors import Error, Kind

FLOOR_BYTES_MAX = 1024 * 1024 * 1024
FLOOR_PART = 20
BALLAST = "ballast"
BALLAST_BYTES_MAX = 16 * 1024 * 1024
BALLAST_PART = 16
RELEASED_BYTES = 64 * 1024

FALLOC_FL_KEEP_SIZE = 1
AT_FDCWD = -100
RENAME_EXCHANGE = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes to preallocate for deletions in the files that they write."""

    database_bytes: int
    wal_bytes: int
    log_bytes: int

    @classmethod
    def on(cls, directory: Path) -> "Room":
        """Return the sizes for a directory's file system: 16 MiB, less on small ones."""
        total = total_bytes(directory)
        mebibyte = 1024 * 1024
        return cls(
            database_bytes=min(4 * mebibyte, total // 16),
            wal_bytes=min(8 * mebibyte, total // 8),
            log_bytes=min(4 * mebibyte, total // 16),
        )


class Floor:
    """The minimum free space: below it only deletions and revocations may write.

    `floor_bytes` 0: a twentieth of the file system, at most 1 GiB.
    """

    def __init__(
        self, directory: Path, floor_bytes: int = 0, *, ballast: "Ballast | None" = None
    ) -> None:
        self._directory = directory
        self._ballast = ballast
        self._chosen = floor_bytes

    @property
    def floor_bytes(self) -> int:
        """Return the floor in bytes."""
        if self._chosen:
            return self._chosen
        return min(FLOOR_BYTES_MAX, total_bytes(self._directory) // FLOOR_PART)

    def free_bytes(self) -> int:
        """Return the bytes that this process may still write."""
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize

    def is_met(self) -> bool:
        """Return whether free space is above the floor."""
        missing = self._ballast.missing_bytes() if self._ballast else 0
        return self.free_bytes() - missing >= self.floor_bytes

    def state(self) -> str:
        """Return the disk's state for monitoring."""
        return "ok" if self.is_met() else "below the floor"

    def check(self) -> None:
        """Check that free space is above the floor. Raises Error(STORAGE_FULL)."""
        if not self.is_met():
            raise full()

    def checked(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks while free space is above the floor. Raises Error(STORAGE_FULL)."""
        for chunk in chunks:
            self.check()
            yield chunk


def total_bytes(directory: Path) -> int:
    """Return the size of the file system that holds a directory."""
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize


@contextmanager
def translated() -> Iterator[None]:
    """Convert ENOSPC and EDQUOT to Error(STORAGE_FULL)."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise full() from error
        raise


def full() -> Error:
    """Return the error for a full disk."""
    return Error(
        Kind.STORAGE_FULL,
        "The server's disk is full: nothing new can be stored. Delete files or models that you no longer need,"
        " or ask the operator for more space. Retrying does not help until then.",
        code="insufficient_storage",
    )


class Ballast:
    """A file that only occupies space, which is released when deletions or revocations need it.

    Until it is restored, its missing bytes count as used: nothing else may take them. It is the second
    reserve: database, keyring and log have preallocated space that is never released (docs/decisions/0016).
    """

    def __init__(self, directory: Path, size: int = 0) -> None:
        self._path = directory / BALLAST
        self.size = size or min(BALLAST_BYTES_MAX, total_bytes(directory) // BALLAST_PART)

    def missing_bytes(self) -> int:
        """Return how many bytes were released."""
        try:
            return max(0, self.size - self._path.stat().st_size)
        except FileNotFoundError:
            return self.size

    def release(self) -> bool:
        """Release some of it; False if nothing is left, or the file system has no room for doing it."""
        try:
            left = self._path.stat().st_size
            if left:
                os.truncate(self._path, max(0, left - max(self.size // 16, RELEASED_BYTES)))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.ENOSPC:  # btrfs writes metadata anew, even to free space
                raise
            return False
        return left > 0

    def restore(self) -> None:
        """Restore it if there is space; else leave it as it is."""
        if not self.missing_bytes():
            return
        with suppress(OSError):
            allocate(self._path, self.size, keep_size=False)

    def run(self, work: Callable[[], T]) -> T:
        """Run `work`; while it fails with STORAGE_FULL, release some ballast and retry."""
        while True:
            try:
                return work()
            except Error as error:
                if error.kind is not Kind.STORAGE_FULL or not self.release():
                    raise


def allocate(path: Path, size: int, *, keep_size: bool = True) -> None:
    """Preallocate `size` bytes for a file, created if missing (fallocate(2)). Raises OSError.

    With `keep_size` its length stays as it is, and the preallocated blocks lie beyond its end.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        if os.fstat(descriptor).st_blocks * 512 >= size and keep_size:
            return
        call = ctypes.CDLL(None, use_errno=True).fallocate
        call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if call(descriptor, FALLOC_FL_KEEP_SIZE if keep_size else 0, 0, size) != 0:
            raise OSError(ctypes.get_errno(), "fallocate failed")
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two file names atomically (renameat2(2), RENAME_EXCHANGE); False if unsupported."""
    call = ctypes.CDLL(None, use_errno=True).renameat2
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    here = AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other)
    return bool(call(*here, RENAME_EXCHANGE) == 0)

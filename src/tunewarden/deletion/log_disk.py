"""The few disk operations that the log is made of: the seam where tests cut the power."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tunewarden.locks import exclusive


class LogDisk(Protocol):
    """What the log asks of a disk. Every failure is an `OSError`."""

    def read(self, path: Path) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if there is none."""

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory; none if it does not exist."""

    def write_synced(self, path: Path, data: bytes) -> None:
        """Put `data` into a new or existing file; bytes and name are durable on return.

        Not atomic: a crash before the return may leave the file absent, empty, or in part.
        """

    def rename_synced(self, source: Path, target: Path) -> None:
        """Replace `target` by `source` in one step, durable on return."""

    def make_directory_synced(self, path: Path) -> None:
        """Make a directory and its parents, durable on return; no effect if it exists."""

    def unlink(self, path: Path) -> None:
        """Take a file or an empty directory away; after a power cut it may be there again."""

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Hold a lock against all other threads and processes; the kernel drops a dead holder's.

        Bounded: raises Error(UNAVAILABLE) when another holds on to it for too long.
        """


class DirectoryLogDisk:
    """The file system of this host."""

    def __init__(self) -> None:
        self._durable: set[Path] = set()

    def read(self, path: Path) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if there is none."""
        return path.read_bytes()

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory; none if it does not exist."""
        with suppress(FileNotFoundError):
            return os.listdir(path)  # noqa: PTH208 - iterdir makes a Path of every name
        return []

    def write_synced(self, path: Path, data: bytes) -> None:
        """Put `data` into a new or existing file; bytes and name are durable on return."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0) as file:
            written = 0
            while written < len(data):  # one write takes at most 2 GiB
                written += file.write(memoryview(data)[written:])
            os.fsync(file.fileno())
        _sync_directory(path.parent)

    def rename_synced(self, source: Path, target: Path) -> None:
        """Replace `target` by `source` in one step, durable on return."""
        source.rename(target)
        _sync_directory(target.parent)

    def make_directory_synced(self, path: Path) -> None:
        """Make a directory and its parents, durable on return; no effect if it exists."""
        if path.is_dir():
            # Whoever made it may have died before it was durable: once a process, make sure.
            if path in self._durable:
                return
        else:
            self.make_directory_synced(path.parent)
            path.mkdir(exist_ok=True)
        _sync_directory(path.parent)
        self._durable.add(path)

    def unlink(self, path: Path) -> None:
        """Take a file or an empty directory away; after a power cut it may be there again."""
        with suppress(FileNotFoundError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Hold a lock against all other threads and processes; the kernel drops a dead holder's."""
        with exclusive(path):
            yield


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

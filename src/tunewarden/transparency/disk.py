"""The disk operations of the log: a port, so that tests can simulate power cuts."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunewarden import space
from tunewarden.locks import exclusive


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to write at offset `at`, after which the file ends. With `at` 0 the file may be new."""

    path: Path
    at: int
    data: bytes


class LogDisk(Protocol):
    """The port. Every failure is an `OSError`."""

    def read(self, path: Path) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if it does not exist."""

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory; none if it does not exist."""

    def extend_synced(self, pieces: Sequence[Piece]) -> None:
        """Write each piece at the end of its file; the bytes and the names of new files are durable on return.

        Not atomic: a crash before the return may leave old bytes or new ones, or zeros beyond the
        old end, from each `at` on.
        """

    def rename_synced(self, source: Path, target: Path) -> None:
        """Atomically replace `target` by `source`, durable on return; `source` may then hold the old `target`."""

    def make_directory_synced(self, path: Path) -> None:
        """Create a directory and its parents, durable on return; no-op if it exists."""

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Hold a lock against all other threads and processes; the kernel releases it if the holder dies.

        Raises Error(UNAVAILABLE) after a timeout.
        """


class DirectoryLogDisk:
    """The local file system."""

    def __init__(self) -> None:
        self._durable: set[Path] = set()

    def read(self, path: Path) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if it does not exist.

        `rename_synced` exchanges two files, and the replaced one is written to again: a read
        is valid only if its file still has this name afterwards.
        """
        while True:
            with path.open("rb") as file:
                found = file.read()
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return found

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory; none if it does not exist."""
        with suppress(FileNotFoundError):
            return os.listdir(path)  # noqa: PTH208 - iterdir makes a Path of every name
        return []

    def extend_synced(self, pieces: Sequence[Piece]) -> None:
        """Write each piece at the end of its file; the bytes and the names of new files are durable on return."""
        with ExitStack() as opened:
            descriptors = [_extended(piece, opened) for piece in pieces]
            # After all writes, so that one journal commit of the file system covers them together.
            for descriptor in descriptors:
                os.fdatasync(descriptor)  # includes the new length: fdatasync(2)
        # The name of an extended file was made durable when it was created.
        for directory in {piece.path.parent for piece in pieces if not piece.at}:
            _sync_directory(directory)

    def rename_synced(self, source: Path, target: Path) -> None:
        """Atomically replace `target` by `source`, durable on return.

        Exchanges them if the file system can: the old file's blocks then hold the next one.
        """
        if not space.exchange(source, target):
            source.rename(target)
        _sync_directory(target.parent)

    def make_directory_synced(self, path: Path) -> None:
        """Create a directory and its parents, durable on return; no-op if it exists."""
        if path.is_dir():
            # Its creator may have died before it was durable: sync it once per process.
            if path in self._durable:
                return
        else:
            self.make_directory_synced(path.parent)
            path.mkdir(exist_ok=True)
        _sync_directory(path.parent)
        self._durable.add(path)

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Hold a lock against all other threads and processes; the kernel releases it if the holder dies."""
        with exclusive(path):
            yield


def _extended(piece: Piece, opened: ExitStack) -> int:
    """Write a piece without syncing; return the file's descriptor, which `opened` closes."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | (0 if piece.at else os.O_CREAT)
    descriptor = os.open(piece.path, flags, 0o644)
    opened.callback(os.close, descriptor)
    _write_at(descriptor, piece.at, piece.data)
    end = piece.at + len(piece.data)
    if os.fstat(descriptor).st_size > end:  # left by a crashed append
        os.ftruncate(descriptor, end)
    return descriptor


def _write_at(descriptor: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    while view:  # one write takes at most 2 GiB
        written = os.pwrite(descriptor, view, at)
        at, view = at + written, view[written:]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

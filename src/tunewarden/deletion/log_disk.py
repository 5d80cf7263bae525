"""The few disk operations that the log is made of: the seam where tests cut the power."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunewarden.locks import exclusive


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes for a file from byte `at` on, after which it ends. With `at` 0 the file may be new."""

    path: Path
    at: int
    data: bytes


class LogDisk(Protocol):
    """What the log asks of a disk. Every failure is an `OSError`."""

    def read(self, path: Path) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if there is none."""

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory; none if it does not exist."""

    def extend_synced(self, pieces: Sequence[Piece]) -> None:
        """Make each file end with its piece; the bytes and the names of new files are durable on return.

        Not atomic: a crash before the return may leave old bytes or new ones, or zeros beyond the
        old end, from each `at` on.
        """

    def rename_synced(self, source: Path, target: Path) -> None:
        """Replace `target` by `source` in one step, durable on return."""

    def make_directory_synced(self, path: Path) -> None:
        """Make a directory and its parents, durable on return; no effect if it exists."""

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

    def extend_synced(self, pieces: Sequence[Piece]) -> None:
        """Make each file end with its piece; the bytes and the names of new files are durable on return."""
        with ExitStack() as opened:
            descriptors = [_extended(piece, opened) for piece in pieces]
            # Only when all are written, so that one commit of the file system takes them together.
            for descriptor in descriptors:
                os.fdatasync(descriptor)  # a new length included: fdatasync(2)
        # A file that is extended was begun at 0 before, and its name was made durable then.
        for directory in {piece.path.parent for piece in pieces if not piece.at}:
            _sync_directory(directory)

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

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Hold a lock against all other threads and processes; the kernel drops a dead holder's."""
        with exclusive(path):
            yield


def _extended(piece: Piece, opened: ExitStack) -> int:
    """Write a piece, not synced; return the file's descriptor, which `opened` closes."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | (0 if piece.at else os.O_CREAT)
    descriptor = os.open(piece.path, flags, 0o644)
    opened.callback(os.close, descriptor)
    _write_at(descriptor, piece.at, piece.data)
    end = piece.at + len(piece.data)
    if os.fstat(descriptor).st_size > end:  # what an append that crashed left
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

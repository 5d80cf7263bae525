"""A disk in memory that can lose power at any operation, in every way that a real one can."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path


class PowerCut(BaseException):
    """The machine went away in the middle of an operation."""


class Torn(StrEnum):
    """What a cut leaves of the operation it hits."""

    NOTHING = "nothing"  # as if it had not begun
    EMPTY = "empty"  # a write left a file without bytes
    HALF = "half"  # a write left its first half
    ZEROS = "zeros"  # a write left the right length and no data
    WHOLE = "whole"  # it was done, and the caller never heard


class FakeLogDisk:
    """Keeps the `LogDisk` contract. `cut_at` counts the changing operations that still succeed."""

    def __init__(self) -> None:
        self.files: dict[Path, bytes] = {}
        self.directories: set[Path] = set()
        self.cut_at: int | None = None
        self.torn = Torn.NOTHING
        self.operations = 0
        self.log: list[str] = []
        self._unlinked: dict[Path, bytes] = {}
        self._locks: dict[Path, threading.Lock] = {}

    def copy(self) -> "FakeLogDisk":
        """Return an independent disk of the same content; files share their bytes."""
        other = FakeLogDisk()
        other.files = dict(self.files)
        other.directories = set(self.directories)
        return other

    def power_on(self, *, unlinked_return: bool = False) -> None:
        """Start again after a cut; unlinks may not have reached the disk."""
        if unlinked_return:
            self.files = self._unlinked | self.files
        self._unlinked.clear()
        self._locks.clear()
        self.cut_at = None
        self.operations = 0

    def read(self, path: Path) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def names(self, path: Path) -> list[str]:
        start = f"{path}/"
        inside = [str(found) for found in (*self.files, *self.directories)]
        return sorted(
            {found[len(start) :].split("/")[0] for found in inside if found.startswith(start)}
        )

    def write_synced(self, path: Path, data: bytes) -> None:
        if path.parent not in self.directories:
            raise FileNotFoundError(path.parent)
        if not self._done(f"write {path.name}"):
            left = {
                Torn.EMPTY: b"",
                Torn.HALF: data[: len(data) // 2],
                Torn.ZEROS: bytes(len(data)),
                Torn.WHOLE: data,
            }
            if self.torn in left:
                self.files[path] = left[self.torn]
            raise PowerCut
        self.files[path] = data

    def rename_synced(self, source: Path, target: Path) -> None:
        done = self._done(f"rename {target.name}")
        if done or self.torn is Torn.WHOLE:
            self.files[target] = self.files.pop(source)
        if not done:
            raise PowerCut

    def make_directory_synced(self, path: Path) -> None:
        if path in self.directories:
            return
        done = self._done(f"mkdir {path.name}")
        if done or self.torn is Torn.WHOLE:
            self.directories |= {path, *path.parents}
        if not done:
            raise PowerCut

    def unlink(self, path: Path) -> None:
        done = self._done(f"unlink {path.name}")
        if done or self.torn is Torn.WHOLE:
            if path in self.directories:
                self.directories.discard(path)
            elif path in self.files:
                self._unlinked[path] = self.files.pop(path)
        if not done:
            raise PowerCut

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        with self._locks.setdefault(path, threading.Lock()):
            yield

    def _done(self, what: str) -> bool:
        self.log.append(what)
        if self.cut_at is not None and self.operations >= self.cut_at:
            return False
        self.operations += 1
        return True

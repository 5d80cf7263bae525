"""A disk in memory that can lose power at any operation, in every way that a real one can."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from tunewarden.transparency.disk import Piece


class PowerCut(BaseException):
    """The machine went away in the middle of an operation."""


class Torn(StrEnum):
    """What a cut leaves of the operation it hits."""

    NOTHING = "nothing"  # as if it had not begun
    EMPTY = "empty"  # a write left no byte, but the name of a new file
    HALF = "half"  # a write left its first half
    ZEROS = "zeros"  # a write left the right length and no data
    FIRST = "first"  # of several files the first was written, and no other
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
        self._locks: dict[Path, threading.Lock] = {}

    def copy(self) -> "FakeLogDisk":
        """Return an independent disk of the same content; files share their bytes."""
        other = FakeLogDisk()
        other.files = dict(self.files)
        other.directories = set(self.directories)
        return other

    def power_on(self) -> None:
        """Start again after a cut."""
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

    def extend_synced(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            known = self.files.get(piece.path, b"")
            assert len(known) >= piece.at, "a hole"
            assert piece.path.parent in self.directories
            assert piece.at == 0 or piece.path in self.files
        done = self._done(f"extend {' '.join(piece.path.name for piece in pieces)}")
        for number, piece in enumerate(pieces):
            torn = Torn.WHOLE if done or (self.torn is Torn.FIRST and not number) else self.torn
            if torn not in {Torn.NOTHING, Torn.FIRST}:
                self.files[piece.path] = _torn(self.files.get(piece.path, b""), piece, torn)
        if not done:
            raise PowerCut

    def rename_synced(self, source: Path, target: Path) -> None:
        done = self._done(f"rename {target.name}")
        if done or self.torn is Torn.WHOLE:
            old, self.files[target] = self.files.get(target), self.files.pop(source)
            if old is not None:
                self.files[source] = old  # they change places
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


def _torn(old: bytes, piece: Piece, torn: Torn) -> bytes:
    """Return what a file holds after a cut: a byte that was there before is the old one or the new."""
    end = piece.at + len(piece.data)
    whole = old[: piece.at] + piece.data
    reached = {
        Torn.EMPTY: old,
        Torn.HALF: whole[: (piece.at + end) // 2] + old[(piece.at + end) // 2 :],
        Torn.ZEROS: old + bytes(max(0, end - len(old))),
        Torn.WHOLE: whole,
    }
    return reached[torn]

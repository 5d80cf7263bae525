"""Blobs as files in a directory: `root/<internal id>/<file>`."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tunewarden.artifacts.blobs import BlobErased, ErasedBlob, checked_name, checked_prefix
from tunewarden.artifacts.disk import Disk, erase_file
from tunewarden.ids import token
from tunewarden.space import Floor

# No internal id starts with a dot, so these names cannot collide with one.
_INCOMING = ".incoming"
_LOCK = ".lock"


class DirectoryBlobs:
    """Encrypted files below `root`, each written to a temporary file, synced and atomically renamed.

    Several processes may share a root. Call `recover` once, before they start.
    """

    def __init__(self, disk: Disk, root: Path, floor: Floor | None = None) -> None:
        self._disk = disk
        self._root = root
        self._floor = floor
        disk.make_directory(root / _INCOMING)

    def put(self, name: str, chunks: Iterable[bytes]) -> int:
        """Write a blob and return its length in bytes; durable and complete, or absent.

        Raises Error(STORAGE_FULL) as soon as free space would fall below the floor.
        """
        path = self._path(name)
        incoming = self._root / _INCOMING / token(24)
        size = self._disk.write_new(
            incoming, self._floor.checked(chunks) if self._floor else chunks
        )
        try:
            # The lock keeps `erase` from removing the directory between these lines.
            with self._disk.exclusive(self._root / _LOCK):
                self._place(incoming, path)
        except BaseException:
            self._disk.unlink(incoming)
            raise
        return size

    def open(self, name: str) -> BinaryIO:
        """Open a blob for reading. Raises `BlobErased` if it does not exist."""
        try:
            return self._disk.open(self._path(name))
        except FileNotFoundError as error:
            raise BlobErased(name) from error

    def names(self, prefix: str) -> list[str]:
        """Return the blobs under `<internal id>/`, or all for the empty prefix, sorted."""
        if checked_prefix(prefix):
            return sorted(prefix + file for file in self._disk.names(self._root / prefix[:-1]))
        return sorted(
            f"{owner}/{file}"
            for owner in self.owners()
            for file in self._disk.names(self._root / owner)
        )

    def owners(self) -> list[str]:
        """Return the internal ids that have a directory, unordered."""
        return [name for name in self._disk.names(self._root) if not name.startswith(".")]

    def erase(self, name: str) -> ErasedBlob:
        """Overwrite the file in place, fsync, unlink, fsync; then remove its directory if empty.

        Idempotent: after a crash at any point, a second call completes the first.
        # D9, I15
        """
        path = self._path(name)
        try:
            size = erase_file(self._disk, path)
            versions = 1
        except FileNotFoundError:
            size = versions = 0
        with self._disk.exclusive(self._root / _LOCK):
            # Even if nothing was found: an unlink before a crash may not be durable yet.
            # Try instead of listing: the root may hold a million names.
            with suppress(FileNotFoundError):
                self._disk.sync_directory(path.parent)
            self._disk.drop_directory(path.parent)
            self._disk.sync_directory(self._root)
        return ErasedBlob(name=name, bytes=size, versions=versions)

    def recover(self) -> None:
        """Unlink leftovers of unfinished writes. Only while no other process writes (at start)."""
        incoming = self._root / _INCOMING
        for name in self._disk.names(incoming):
            # Not overwritten: the bytes are ciphertext, and after a power cut the file may
            # also exist under its final name.
            self._disk.unlink(incoming / name)
        self._disk.sync_directory(incoming)

    def _place(self, incoming: Path, path: Path) -> None:
        if path.name in self._disk.names(path.parent):
            raise ValueError(f"the blob {path.parent.name}/{path.name} exists")
        self._disk.make_directory(path.parent)
        self._disk.rename(incoming, path)
        self._disk.sync_directory(path.parent)

    def _path(self, name: str) -> Path:
        return self._root / checked_name(name)

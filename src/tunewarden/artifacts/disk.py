"""The disk operations of blobs and keyring: the port, and the local file system.

Durability is explicit: a file's bytes are durable when `write_new` or `overwrite`
returns; a name (created, renamed, unlinked) is durable only after `sync_directory`. Tests run the same
callers on `tests/fakes/disk.py`, which loses everything else in a simulated crash.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from tunewarden import locks, mounts, space
from tunewarden.errors import Error, Kind
from tunewarden.ids import random_bytes

# File systems that overwrite in place. Copy-on-write and log-structured ones (btrfs,
# zfs, f2fs, bcachefs) and layers that hide the medium (overlay, fuse, network) are left out on purpose: I17.
IN_PLACE_FILESYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs"})

_NOISE_BYTES = 1024 * 1024


class InPlaceFile(Protocol):
    """An existing file held open, so that its blocks can be overwritten later."""

    @property
    def size(self) -> int:
        """Return the file's length in bytes."""

    def overwrite(self, chunks: Iterable[bytes]) -> None:
        """Overwrite the file from its first byte; durable when this returns."""

    def replace(self, chunks: Iterable[bytes]) -> None:
        """Like `overwrite`, then truncate the file to them. Needs no free space within the old length."""


class Disk(Protocol):
    """Files by path. Missing files raise FileNotFoundError, other failures Error(UNAVAILABLE)."""

    def open(self, path: Path) -> BinaryIO:
        """Open a file for reading."""

    def read(self, path: Path) -> bytes:
        """Return all of a file's bytes."""

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, unordered; none if it does not exist."""

    def size(self, path: Path) -> int:
        """Return a file's length in bytes."""

    def make_directory(self, directory: Path) -> None:
        """Create a directory and its parents if missing; durable when this returns."""

    def drop_directory(self, directory: Path) -> None:
        """Remove a directory if it is empty; durable after its parent is synced."""

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        """Create a file and return its length. Its bytes are durable, its name is not yet.

        Leaves no file on failure. Raises FileExistsError rather than overwrite.
        """

    def open_in_place(self, path: Path) -> AbstractContextManager[InPlaceFile]:
        """Hold an existing file open for overwriting."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file atomically; durable after the target's directory is synced."""

    def unlink(self, path: Path) -> None:
        """Unlink a file if it exists; durable after the directory is synced."""

    def sync_directory(self, directory: Path) -> None:
        """Fsync a directory: makes its names durable."""

    def exclusive(self, path: Path) -> AbstractContextManager[None]:
        """Hold a lock that excludes all other threads and processes; the kernel releases it if the holder dies.

        Raises Error(UNAVAILABLE) after a timeout.
        """

    def overwrites_in_place(self, path: Path) -> bool:
        """Return whether the file system is known to overwrite in place."""


def noise(size: int) -> Iterator[bytes]:
    """Yield `size` random bytes in blocks; beyond 1 MiB the same block is repeated."""
    block = random_bytes(min(size, _NOISE_BYTES))
    for start in range(0, size, _NOISE_BYTES):
        yield block[: size - start]


def erase_file(disk: Disk, path: Path) -> int:
    """Overwrite a file in place, unlink it, and return its length. Sync the directory afterwards."""
    with disk.open_in_place(path) as file:
        size = file.size
        file.overwrite(noise(size))
    disk.unlink(path)
    return size


class LocalDisk:
    """The local file system."""

    def open(self, path: Path) -> BinaryIO:
        """Open a file for reading."""
        with _translated():
            return path.open("rb")

    def read(self, path: Path) -> bytes:
        """Return all of a file's bytes."""
        with _translated():
            return path.read_bytes()

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory; none if it does not exist."""
        with _translated():
            try:
                return [path.name for path in directory.iterdir()]
            except FileNotFoundError:
                return []

    def size(self, path: Path) -> int:
        """Return a file's length in bytes."""
        with _translated():
            return path.stat().st_size

    def make_directory(self, directory: Path) -> None:
        """Create a directory (mode 0700) and its parents; durable when this returns."""
        with _translated():
            if not directory.parent.is_dir():
                self.make_directory(directory.parent)
            directory.mkdir(mode=0o700, exist_ok=True)
        # Even if it existed: the process that created it may have died before this line.
        self.sync_directory(directory.parent)

    def drop_directory(self, directory: Path) -> None:
        """Remove a directory if it is empty."""
        with _translated():
            try:
                directory.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        """Create a file (mode 0600), fsync it, and return its length."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with _translated():
            descriptor = os.open(path, flags, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.writelines(chunks)
                    file.flush()
                    os.fsync(descriptor)
                    return file.tell()
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise

    @contextmanager
    def open_in_place(self, path: Path) -> Iterator[InPlaceFile]:
        """Hold an existing regular file open for overwriting."""
        with _translated():
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield _LocalInPlaceFile(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file atomically."""
        with _translated():
            source.rename(target)

    def unlink(self, path: Path) -> None:
        """Unlink a file if it exists."""
        with _translated():
            path.unlink(missing_ok=True)

    def sync_directory(self, directory: Path) -> None:
        """Fsync the directory."""
        with _translated():
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def exclusive(self, path: Path) -> Iterator[None]:
        """Hold a lock file. Each call opens it again, so threads exclude each other too."""
        with ExitStack() as held:
            with _translated():
                held.enter_context(locks.exclusive(path))
            yield

    def overwrites_in_place(self, path: Path) -> bool:
        """Return whether the mount table names a file system that overwrites in place."""
        kind, options = _file_system_of(path)
        # In data=journal mode ext4 writes every block to the journal first, where it stays for a while.
        return kind in IN_PLACE_FILESYSTEMS and "data=journal" not in options


class _LocalInPlaceFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def overwrite(self, chunks: Iterable[bytes]) -> None:
        with _translated():
            offset = 0
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    written = os.pwrite(self._descriptor, view, offset)
                    offset += written
                    view = view[written:]
            os.fdatasync(self._descriptor)

    def replace(self, chunks: Iterable[bytes]) -> None:
        data = b"".join(chunks)
        if len(data) < self.size:
            with _translated():
                os.ftruncate(self._descriptor, len(data))
        self.overwrite([data])


def is_volatile(directory: Path) -> bool:
    """Return whether the directory is on tmpfs, so that plaintext weights may be written there.

    # I16
    """
    return _file_system_of(directory).kind in mounts.IN_MEMORY


def _file_system_of(path: Path) -> mounts.FileSystem:
    with _translated():
        return mounts.file_system_of(path)


@contextmanager
def _translated() -> Iterator[None]:
    """Convert OSError to `Error`, except FileNotFoundError and FileExistsError."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise space.full() from error
        reason = errno.errorcode.get(error.errno or 0, "unknown")
        message = f"The server's storage failed ({reason}). Try again; if it persists, contact the operator."
        raise Error(Kind.UNAVAILABLE, message, code="storage_failed") from error

"""The few things that the blobs and the keyring ask of a disk, and the real disk.

Nothing here is durable by accident: a file's bytes are durable when `write_new` or `overwrite`
returns; a name (made, renamed, unlinked) is durable only after `sync_directory`. Tests run the same
callers over `tests/fakes/disk.py`, which loses everything else at a crash.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from tunewarden import locks
from tunewarden.errors import Error, Kind
from tunewarden.ids import random_bytes

# Filesystems that write a file's new bytes over its old ones. Those that write elsewhere (btrfs,
# zfs, f2fs, bcachefs) or hide what is below (overlay, fuse, network) are left out on purpose: I17.
IN_PLACE_FILESYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs"})
VOLATILE_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})

_NOISE_BYTES = 1024 * 1024


class InPlaceFile(Protocol):
    """An existing file held open, so that its very blocks can be overwritten later."""

    @property
    def size(self) -> int:
        """Return the file's length in bytes."""

    def overwrite(self, chunks: Iterable[bytes]) -> None:
        """Write the chunks over the file from its first byte; durable when this returns."""


class Disk(Protocol):
    """Files by path. Missing files raise FileNotFoundError, other failures `Error` UNAVAILABLE."""

    def open(self, path: Path) -> BinaryIO:
        """Open a file for reading."""

    def read(self, path: Path) -> bytes:
        """Return all of a file's bytes."""

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, in no order; none when it does not exist."""

    def size(self, path: Path) -> int:
        """Return a file's length in bytes."""

    def make_directory(self, directory: Path) -> None:
        """Make a directory, and its parents, if it is not there; durable when this returns."""

    def drop_directory(self, directory: Path) -> None:
        """Unlink a directory if it is empty; durable after its parent is synced."""

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        """Make a file of these bytes and return its length. Its bytes are durable, its name is not.

        Leaves no file when it fails. Raises FileExistsError rather than write over anything.
        """

    def open_in_place(self, path: Path) -> AbstractContextManager[InPlaceFile]:
        """Hold an existing file open for overwriting."""

    def rename(self, source: Path, target: Path) -> None:
        """Move a file, atomically; durable after the target's directory is synced."""

    def unlink(self, path: Path) -> None:
        """Take the name away, if it is there; durable after the directory is synced."""

    def sync_directory(self, directory: Path) -> None:
        """Make the directory's names durable."""

    def exclusive(self, path: Path) -> AbstractContextManager[None]:
        """Wait for, then hold, a lock among all threads and processes; a dead holder lets go.

        Bounded: raises Error(UNAVAILABLE) when another holds on to it for too long.
        """

    def overwrites_in_place(self, path: Path) -> bool:
        """Tell whether the filesystem is known to overwrite a file where it lies."""


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
    """The machine's filesystem, through system calls that are synced one by one."""

    def open(self, path: Path) -> BinaryIO:
        """Open a file for reading."""
        with _translated():
            return path.open("rb")

    def read(self, path: Path) -> bytes:
        """Return all of a file's bytes."""
        with _translated():
            return path.read_bytes()

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory; none when it does not exist."""
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
        """Make a directory for the owner only, with its parents; durable when this returns."""
        with _translated():
            if not directory.parent.is_dir():
                self.make_directory(directory.parent)
            directory.mkdir(mode=0o700, exist_ok=True)
        # Also when it was there: whoever made it may have died before this line.
        self.sync_directory(directory.parent)

    def drop_directory(self, directory: Path) -> None:
        """Unlink a directory if it is empty."""
        with _translated():
            try:
                directory.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        """Make a file, readable by the owner only, fsync it, and return its length."""
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
        """Move a file, atomically."""
        with _translated():
            source.rename(target)

    def unlink(self, path: Path) -> None:
        """Take the name away, if it is there."""
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
        """Hold a lock file. Each call opens it anew, so threads exclude each other as well."""
        with ExitStack() as held:
            with _translated():
                held.enter_context(locks.exclusive(path))
            yield

    def overwrites_in_place(self, path: Path) -> bool:
        """Tell whether the kernel's mount table names a filesystem that overwrites in place."""
        kind, options = _filesystem(path)
        # With a data journal ext4 first writes every block to the journal, where it stays a while.
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


def is_volatile(directory: Path) -> bool:
    """Tell whether the directory lives in memory only (tmpfs), so that plain weights may go there.

    # I16
    """
    return _filesystem(directory)[0] in VOLATILE_FILESYSTEMS


def _filesystem(path: Path) -> tuple[str, frozenset[str]]:
    """Return the type and the superblock options of the filesystem that holds `path`.

    Both are empty when the mount table does not say (proc(5), /proc/self/mountinfo).
    """
    with _translated():
        device = path.stat().st_dev
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        fields, kind = mount.split(), source.split()
        if len(fields) > 2 and fields[2] == wanted and len(kind) == 3:
            return kind[0], frozenset(kind[2].split(","))
    return "", frozenset()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn a failing system call into an `Error`; whether a file exists is the caller's business."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "unknown")
        message = (
            f"The server's storage failed ({reason}). Try again; if it persists, tell the operator."
        )
        raise Error(Kind.UNAVAILABLE, message, code="storage_failed") from error

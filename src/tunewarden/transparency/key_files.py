"""The files of the log's signing key: its seed, and while it is rotated the seeds of the next and the former key.

`log.key` is the seed in use; `log.key.next` one that a rotation made and the log may name already; `log.key.old` a
former one that is being erased. A name is only ever given to complete, durable bytes.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.ids import random_bytes

SEED_BYTES = 32


class KeyFiles:
    """The files around the seed in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_name(f"{path.name}.next")
        self._former = path.with_name(f"{path.name}.old")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold them against all other processes and threads for a block. Not reentrant. Raises Error(UNAVAILABLE)."""
        with translated():
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                yield
            finally:
                os.close(directory)

    def create_or_read(self) -> bytes:
        """Return the seed in use, made if there is none. Raises Error(UNAVAILABLE). Call it locked."""
        with translated():
            if not self._path.exists():
                self._write(self._path)
            return _read(self._path)

    def read(self) -> bytes:
        """Return the seed in use of a log that exists: none is made. Raises Error(UNAVAILABLE). Call it locked."""
        with translated():
            if not self._path.exists():
                raise Error(
                    Kind.UNAVAILABLE,
                    f"{self._path.name}, the signing key of the deletion log, is missing. Restore the newest copies of log/"
                    f" and {self._path.name}*, which belong together, then start again. Nothing was changed.",
                    code="log_key_missing",
                )
            return _read(self._path)

    def is_in_use(self, seed: bytes) -> bool:
        """Return whether this is the seed in use, and no rotation is in progress. Raises Error(UNAVAILABLE)."""
        with translated():
            return not self._next.exists() and _read(self._path) == seed

    def is_rotating(self) -> bool:
        """Return whether a rotation is in progress, or was interrupted."""
        return self._next.exists() or self._former.exists()

    def make_next(self) -> bytes:
        """Make the next seed, durably; return it. Raises Error(UNAVAILABLE)."""
        with translated():
            self._write(self._next)
            return _read(self._next)

    def read_next(self) -> bytes | None:
        """Return the next seed, or None. Raises Error(UNAVAILABLE)."""
        with translated():
            return _read(self._next) if self._next.exists() else None

    def promote_next(self) -> None:
        """Put the next seed into use; the former one is erased by `erase_former`. May be repeated after a crash."""
        with translated():
            self._former.unlink(missing_ok=True)  # another name of the seed in use, of a crash
            os.link(self._path, self._former)
            self._sync()
            self._next.rename(self._path)
            self._sync()

    def erase_next(self) -> None:
        """Erase the next seed, which nothing names."""
        self._erase(self._next)

    def erase_former(self) -> None:
        """Erase the seed that was in use, if it is still there."""
        with translated(), suppress(FileNotFoundError):
            if self._former.samefile(self._path):  # a crash in `promote_next`: it is still in use
                self._former.unlink()
        self._erase(self._former)

    def _erase(self, path: Path) -> None:
        """Overwrite a seed in place and unlink it: best effort, a disk may keep old blocks."""
        with translated(), suppress(FileNotFoundError):
            self._overwrite(path)
            path.unlink()
            self._sync()

    def _overwrite(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, bytes(SEED_BYTES), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _write(self, path: Path) -> None:
        """Create a seed's file under the lock, so that a torn `.new` is always a leftover."""
        new = self._path.with_name(f"{self._path.name}.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(random_bytes(SEED_BYTES))
            file.flush()
            os.fsync(descriptor)
        # link(2) fails if the target exists: an existing key is never overwritten.
        os.link(new, path)
        new.unlink()
        self._sync()

    def _sync(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextmanager
def translated() -> Iterator[None]:
    """Convert OSError to an `Error` that says what to do."""
    try:
        yield
    except OSError as error:
        raise Error(
            Kind.UNAVAILABLE,
            "The log's signing key can be neither read nor made: check that its directory "
            "exists, belongs to the server and is not full.",
        ) from error


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            raise Error(
                Kind.UNAVAILABLE,
                "Other users can read the log's signing key. Set its mode to 0600, and consider the key compromised.",
            )
        seed = file.read(SEED_BYTES + 1)
    if len(seed) != SEED_BYTES:
        raise Error(
            Kind.UNAVAILABLE,
            "The log's signing key is damaged: restore the file from its backup. Do not let a new "
            "one be made, for receipts already given name the old one.",
        )
    return seed

"""Maintains the preallocated disk space for deletions and revocations (I20, D3)."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tunewarden import space
from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.locks import ByteLocks
from tunewarden.space import Ballast, Floor, Room
from tunewarden.transparency import room as log_room


class Reserving(Protocol):
    """A keyring that can preallocate."""

    def reserve(self) -> None:
        """Preallocate for the next change of each shard."""


@dataclass(slots=True)
class Reserve:
    """All preallocated space of one data directory. For the background runner."""

    floor: Floor
    ballast: Ballast
    room: Room
    database: Database
    keyring: Reserving
    reserve_workers: Callable[[], None]
    reserve_mark: Callable[[], None]
    lock_file: Path
    log_directory: Path
    log_size: Callable[[], int]
    _keyring_is_due: bool = field(default=True, init=False)
    _log_size: int = field(default=-1, init=False)

    def restore(self) -> None:
        """Restore used space, the ballast first; nothing below the floor. Raises Error."""
        try:
            with space.translated():
                self._restore()
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "unknown")
            message = f"Space for deletions on a full disk cannot be preallocated on this file system ({name})."
            raise Error(Kind.UNAVAILABLE, message, code="storage_failed") from error

    def _restore(self) -> None:
        self.ballast.restore()
        if not self.floor.is_met():
            self._keyring_is_due = True
            return
        self.database.reserve(self.room.database_bytes, self.room.wal_bytes)
        self.reserve_workers()
        ByteLocks(self.lock_file).close()  # creates it: on XFS a new file needs space
        size = self.log_size()
        if size != self._log_size:
            log_room.reserve(self.log_directory, size, self.room.log_bytes)
            self._log_size = size
        if self._keyring_is_due:
            self.reserve_mark()
            self.keyring.reserve()
            self._keyring_is_due = False

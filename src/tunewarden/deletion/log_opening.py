"""The deletion log when a data directory is opened: found, or created if nothing was ever deleted; and its key's rotation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tunewarden import __version__
from tunewarden.clock import Clock, iso
from tunewarden.config import Config
from tunewarden.db.database import Database
from tunewarden.deletion import records, replay
from tunewarden.deletion.recovery import LogMark
from tunewarden.errors import Error, Kind
from tunewarden.ids import token
from tunewarden.registry import restore_marks
from tunewarden.transparency.disk import DirectoryLogDisk, LogDisk
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.key_files import KeyFiles
from tunewarden.transparency.key_rotation import KeyRotation
from tunewarden.transparency.log import Log
from tunewarden.webhooks import resealing
from tunewarden_receipts.key_chain import HandOver


@dataclass(frozen=True)
class LogOpening:
    """Opens the log of a data directory, and rotates its key. Both may raise Error(UNAVAILABLE)."""

    config: Config
    database: Database
    log_mark: LogMark
    found: Callable[[Path, LogSigner], Log]
    new: Callable[[Path, LogSigner], Log]
    disk: LogDisk = field(default_factory=DirectoryLogDisk)
    key_files: Callable[[Path], KeyFiles] = KeyFiles

    def open(self) -> tuple[Log, LogSigner]:
        """Open the log; create it only if nothing was ever deleted. Its name is part of its checkpoint."""
        if (rotation := self._rotation()) is not None:
            return rotation.opened()
        self._check_not_lost()
        signer = LogSigner.create_or_load(self.config.signing_key, f"tunewarden.local/{token(12)}")
        return self.new(self.config.log, signer), signer

    def check_exists(self) -> None:
        """Check that there is a log; none is made. Raises Error(CONFLICT), or Error(UNAVAILABLE) for a lost one."""
        if self._rotation() is None:
            self._check_not_lost()
            raise Error(Kind.CONFLICT, "There is no deletion log yet, so its key signed nothing.")

    def is_rotation_interrupted(self) -> bool:
        """Return whether a rotation of the key was interrupted, and neither completed nor undone yet."""
        return self.key_files(self.config.signing_key).is_rotating()

    def _check_not_lost(self) -> None:
        was_written = self.log_mark.read() or restore_marks.log_size(self.database)
        if was_written or records.exist(self.database):
            raise Error(
                Kind.UNAVAILABLE,
                "The deletion log is missing although models were deleted. Restore the newest copy of"
                f" {self.config.log.name}/ and {self.config.signing_key.name}, then start again.",
            )

    def settle_rotation(self, check: Callable[[Log, LogSigner], object]) -> HandOver | None:
        """Complete a rotation of the key that was interrupted and return its hand-over, or undo it.

        `check` replays the log, or raises Error if anything is an old copy: then nothing is completed or undone.
        """
        rotation = self._rotation()
        return None if rotation is None else rotation.settle(check)

    def rotate_key(self, clock: Clock) -> HandOver:
        """Hand the log over to a new key. No server may run; the database must have seen the whole log."""
        self.check_exists()
        rotation = self._rotation()
        assert rotation is not None, "it was checked"
        return rotation.rotate(iso(clock.now()), f"tunewarden {__version__}")

    def _rotation(self) -> KeyRotation | None:
        """Return what opens an existing log; None if there is none."""
        checkpoint = self.config.log / "checkpoint"
        if not checkpoint.exists():
            return None
        return KeyRotation(
            name=checkpoint.read_text("utf-8").partition("\n")[0],
            files=self.key_files(self.config.signing_key),
            directory=self.config.log,
            disk=self.disk,
            found=self.found,
            note=self._note_rotation,
        )

    def _note_rotation(self, index: int, former: LogSigner, new: LogSigner) -> None:
        """Seal anew what the former key sealed, and record the rotation, once.

        The database's mark is raised over the leaf only from the leaf: what is before it must have been replayed.
        """
        is_next = restore_marks.log_size(self.database) == index
        with self.database.write(below_floor=True) as tx:
            resealing.reseal(tx, former.derive, new.derive)  # what it sealed already stays as it is
            if is_next:
                replay.hand_over(tx, former.key.digest(), new.key.digest(), index)
                restore_marks.see_log(tx, index + 1)
        self.log_mark.raise_to(index + 1)

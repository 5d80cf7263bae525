"""The deletion log when a data directory is opened: found, or created if nothing was ever deleted."""

from collections.abc import Callable
from pathlib import Path

from tunewarden.config import Config
from tunewarden.db.database import Database
from tunewarden.deletion import records
from tunewarden.deletion.recovery import LogMark
from tunewarden.errors import Error, Kind
from tunewarden.ids import token
from tunewarden.registry import restore_marks
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log


def open_log(
    config: Config,
    database: Database,
    log_mark: LogMark,
    *,
    found: Callable[[Path, LogSigner], Log],
    new: Callable[[Path, LogSigner], Log],
) -> tuple[Log, LogSigner]:
    """Open the log; create it only if nothing was ever deleted. Its name is part of its checkpoint."""
    checkpoint = config.log / "checkpoint"
    if checkpoint.exists():
        name = checkpoint.read_text("utf-8").partition("\n")[0]
        signer = LogSigner.create_or_load(config.signing_key, name)
        return found(config.log, signer), signer
    was_written = log_mark.read() or restore_marks.log_size(database)
    if was_written or records.exist(database):
        raise Error(
            Kind.UNAVAILABLE,
            "The deletion log is missing although models were deleted. Restore the newest copy of"
            f" {config.log.name}/ and {config.signing_key.name}, then start again.",
        )
    signer = LogSigner.create_or_load(config.signing_key, f"tunewarden.local/{token(12)}")
    return new(config.log, signer), signer

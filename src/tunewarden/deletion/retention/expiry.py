"""Expiry of files, and of uploads that were never completed.

An expired file is deleted by the same protocol as any other, with the server as the actor and
with a receipt; an unfinished job that needs it delays that (D2).
"""

from collections.abc import Callable
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import plan
from tunewarden.deletion.commitment import commit
from tunewarden.deletion.records import Intent
from tunewarden.deletion.replay import SERVER
from tunewarden.deletion.retention.expiry_pause import ClockWatch
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts, file_rows
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden.registry.file_rows import File
from tunewarden.registry.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Expiry:
    """Expires files and uploads. `log_size` is called before a deletion is committed, as for any other."""

    database: Database
    uploads: Uploads
    log_size: Callable[[], int]
    watch: ClockWatch

    def run(self) -> int:
        """Commit the deletions of expired files and end expired uploads; return their number.

        Does nothing while the clock cannot be trusted (expiry_pause.py). `Executor.resume` then runs the deletions.
        """
        count = 0
        now = self.watch.trusted_now()
        if now is not None:
            count = self._files(now)
            count += self.uploads.expire()
        self.uploads.tidy()
        return count

    def _files(self, now: int) -> int:
        count = 0
        for page in file_rows.due(self.database, now):
            since = self.log_size()
            for file in page:
                with self.database.write(below_floor=True) as tx:
                    count += _ask(tx, file, since)
        return count


def _ask(tx: Tx, file: File, log_size: int) -> bool:
    """Commit the deletion of an expired file, unless it has begun or an unfinished job needs it."""
    found = artifacts.find_any(tx, ArtifactKind.FILE, file.organization_id, file.id)
    if found is None or found.state is not State.ACTIVE:
        return False
    if plan.of(tx, ArtifactKind.FILE, found).blockers:
        return False
    intent = Intent(
        deletion_id=mint(Prefix.DELETION),
        requested_by=SERVER,
        requested_at=tx.now_micros,
        epoch=found.epoch + 1,
        log_since=log_size,
    )
    commit(tx, found, intent, audit.SERVER, reason="it has expired")
    return True

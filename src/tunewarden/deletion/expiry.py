"""What goes by itself: files whose time is over, and uploads that were never completed.

An expired file goes by the same protocol as one that somebody deletes, in the server's own name and
with a receipt; a job that has not ended keeps it until then (D2).
"""

from collections.abc import Callable
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import plan
from tunewarden.deletion.recovery import SERVER
from tunewarden.deletion.requests import Intent, commit
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts, files
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden.registry.files import File
from tunewarden.registry.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Expiry:
    """Ends what is due. `log_size` is asked before a deletion is committed, as for any other."""

    database: Database
    uploads: Uploads
    log_size: Callable[[], int]

    def run(self) -> int:
        """Ask for the deletion of expired files and end expired uploads; return how many there were.

        The deletions are then carried out like all that are unfinished (`Executor.resume`).
        """
        count = self._files()
        count += self.uploads.expire()
        self.uploads.tidy()
        return count

    def _files(self) -> int:
        with self.database.read() as tx:
            now = tx.now_micros
        count = 0
        for page in files.due(self.database, now):
            since = self.log_size()
            for file in page:
                with self.database.write() as tx:
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

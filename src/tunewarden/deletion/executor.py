"""Runs deletions forward, and resumes them: start-up is recovery (D10).

One runner at a time works on a deletion: it holds a kernel lock on the deletion's byte of one file,
which a crash gives back, so that any other runner adopts what is unfinished.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.deletion import records
from tunewarden.deletion.protocol import ANSWERED_AFTER, ORDER, Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt, request_deletion
from tunewarden.deletion.steps import Steps
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.locks import ByteLocks
from tunewarden.registry.artifacts import ArtifactKind

POLL_SECONDS = 0.002

logger = logging.getLogger(__name__)


class Executor:
    """Deletes models. Every process that may delete has one; they share the lock file."""

    def __init__(
        self,
        database: Database,
        steps: Steps,
        clock: Clock,
        lock_file: Path,
        *,
        bound_seconds: float,
    ) -> None:
        self._database = database
        self._steps = steps
        self._clock = clock
        self._lock_file = lock_file
        self._bound_seconds = bound_seconds

    def delete(
        self, caller: Caller, kind: ArtifactKind, artifact_id: str, attempt: Attempt
    ) -> Deletion:
        """Delete a model or a file: return when it, and what goes with it, is gone (D8), for good.

        Raises Error(NOT_FOUND), Error(FORBIDDEN) and Error(CONFLICT) with nothing changed;
        Error(UNAVAILABLE) with the deletion committed and going on in the background (I13).
        """
        log_size = self._steps.log_size()
        deletion = request_deletion(
            self._database, caller, kind, artifact_id, attempt, log_size=log_size
        )
        deadline = self._clock.monotonic() + self._bound_seconds
        for part in records.parts_of(self._database, deletion):
            self._ended(part, deadline)
        return self._ended(deletion, deadline)

    def _ended(self, deletion: Deletion, deadline: float) -> Deletion:
        """Return a deletion that is done up to D8: by us, or by whoever works on it."""
        if deletion.is_deleted:
            return deletion
        while True:
            with self._claimed(deletion) as is_mine:
                if is_mine:
                    return self._answerable(deletion, deadline)
            current = self._current(deletion)
            if current.is_deleted:
                return current
            if self._clock.monotonic() > deadline:
                raise still_deleting(deletion)
            self._clock.sleep(POLL_SECONDS)

    def resume(self, *, last: Step = ORDER[-1]) -> int:
        """Work on what is unfinished up to `last` and nobody works on; return how many are left."""
        left = 0
        for deletion_id in records.unfinished(self._database):
            deletion = records.find(self._database, deletion_id)
            if deletion is None:
                raise RuntimeError("a deletion's row is never removed")
            with self._claimed(deletion) as is_mine:
                if not is_mine:
                    left += 1
                    continue
                try:
                    left += self._run(self._current(deletion), last=last).progress.next is not None
                except Exception:
                    # A boundary: one deletion that cannot go on must not stop the others.
                    logger.exception(
                        "deletion %s could not go on; it will be tried again", deletion.id
                    )
                    left += 1
        return left

    def _answerable(self, deletion: Deletion, deadline: float) -> Deletion:
        try:
            return self._run(self._current(deletion), last=ANSWERED_AFTER, deadline=deadline)
        except Exception as error:
            # A boundary: after the commit point there is no refusal any more, only "not done yet".
            logger.exception("deletion %s goes on in the background", deletion.id)
            raise still_deleting(deletion) from error

    def _run(self, deletion: Deletion, *, last: Step, deadline: float = float("inf")) -> Deletion:
        """Do the steps that are left, up to `last`, in order; begin none after `deadline`."""
        stop = ORDER.index(last)
        while (step := deletion.progress.next) is not None and ORDER.index(step) <= stop:
            if self._clock.monotonic() > deadline:
                raise TimeoutError(f"{step} was not begun within the bound")
            deletion = self._steps.do(step, deletion)
        return deletion

    def _current(self, deletion: Deletion) -> Deletion:
        current = records.find(self._database, deletion.id)
        if current is None:
            raise RuntimeError("a deletion's row is never removed")
        return current

    @contextmanager
    def _claimed(self, deletion: Deletion) -> Iterator[bool]:
        # An open file of its own each time, so that threads of one process exclude each other too.
        locks = ByteLocks(self._lock_file)
        try:
            yield locks.try_exclusive(deletion.n)
        finally:
            locks.close()


def still_deleting(deletion: Deletion) -> Error:
    """Return the 503 for a deletion that is committed and not finished within the bound (I13)."""
    return Error(
        Kind.UNAVAILABLE,
        f"The deletion {deletion.id} is committed and goes on: the model serves nothing new and cannot"
        " come back. It is not finished yet; ask again.",
        code="deletion_in_progress",
        retry_after_seconds=1,
    )

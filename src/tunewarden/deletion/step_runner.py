"""Shared by all ways to run deletions: run a step with ballast, read a deletion again, log a failure."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from tunewarden.clock import Clock, Throttle
from tunewarden.db.database import Database
from tunewarden.deletion import records
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.steps import Steps
from tunewarden.errors import Error
from tunewarden.metrics import families, recording
from tunewarden.space import Ballast

T = TypeVar("T")

logger = logging.getLogger(__name__)


class StepRunner:
    """Runs steps of deletions. Thread-safe."""

    def __init__(
        self, database: Database, steps: Steps, clock: Clock, ballast: Ballast | None
    ) -> None:
        self.database = database
        self.steps = steps
        self._ballast = ballast
        self._logged = Throttle(clock)

    def do(self, step: Step, deletions: Sequence[Deletion]) -> list[Deletion]:
        """Run a step of each deletion; return the updated deletions, in the same order."""
        with recording.timed(families.STEP, step.name.lower()):
            done = self.with_room(lambda: self.steps.do(step, deletions))
        for one in done:
            if step is Step.FINISH:
                recording.count(families.DELETIONS, one.kind)
                _observe(one.requested_at, one.deleted_at, "answerable")
            elif step is Step.ERASE_BLOBS:
                _observe(one.requested_at, one.blobs_erased_at, "erased")
        return done

    def evict(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """Do D4 and D5 of those that need it, without storing it; return all."""
        found = list(deletions)
        for step in (Step.FENCE, Step.EVICT):
            due = [one for one in found if one.next_step is step]
            done = {one.n: one for one in self.do(step, due)} if due else {}
            found = [done.get(one.n, one) for one in found]
        return found

    def with_room(self, work: Callable[[], T]) -> T:
        """Run `work`; on a full disk, release ballast and retry. # I20, D3."""
        return work() if self._ballast is None else self._ballast.run(work)

    def find(self, deletion_id: str) -> Deletion:
        """Return the stored deletion."""
        deletion = records.find(self.database, deletion_id)
        if deletion is None:
            raise RuntimeError("a deletion's row is never removed")
        return deletion

    def log(self, error: Exception, what: str) -> None:
        """Log a failure: each message at most once a minute, with a traceback for bugs only."""
        if isinstance(error, (Error, TimeoutError)):
            if self._logged.allows(str(error)):
                logger.warning("%s: %s", what, error)
        elif self._logged.allows(what):
            logger.error("%s", what, exc_info=error)


def _observe(since: int, until: int | None, what: str) -> None:
    assert until is not None, "the step is done"
    recording.observe(families.DELETION, max(0, until - since) / 1_000_000, what)

"""Runs deletions forward, and resumes them: start-up is recovery (D10).

One runner at a time works on a deletion: it holds a kernel lock on the deletion's byte of one file,
which a crash gives back, so that any other runner adopts what is unfinished.

From D6 to D8 all deletions write the same few files, so these steps are done under one more lock,
byte 0 of that file. Who finds it held notes what D4 and D5 found and queues; whoever holds it takes
along all that have noted so far, in whatever process they wait, and when their turn comes, they find
themselves done. If it dies, the next one begins where it stopped.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from tunewarden.locks import WAIT_SECONDS, ByteLocks, give_back, take, try_take
from tunewarden.registry.artifacts import ArtifactKind

POLL_SECONDS = 0.002
TOGETHER = (Step.ERASE_KEY, Step.LOG, Step.FINISH)
# So many are done at once: few enough that those who wait behind them do not notice.
TOGETHER_MAX = 32

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
        # By n: what was among several that failed, and is done alone from then on.
        self._apart: set[int] = set()

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

    def resume(
        self, *, last: Step = ORDER[-1], may_go_on: Callable[[], bool] = lambda: True
    ) -> int:
        """Work on what is unfinished up to `last` and nobody works on; return how many are left.

        Asks before each group of erasures (D9) whether it may go on with them.
        """
        left = sum(self._resumed(one) for one in records.unanswered(self._database))
        if last is ANSWERED_AFTER:
            return left
        waiting = records.unerased(self._database)
        for start in range(0, len(waiting), TOGETHER_MAX):
            if not may_go_on():
                return left + len(waiting) - start
            left += self._erase_blobs(waiting[start : start + TOGETHER_MAX])
        return left

    def _resumed(self, deletion_id: str) -> bool:
        """Bring one deletion up to D8; tell whether it is left."""
        deletion = self._found(deletion_id)
        with self._claimed(deletion) as is_mine:
            if not is_mine:
                return True
            try:
                return not self._run(self._current(deletion), last=ANSWERED_AFTER).is_deleted
            except Exception:
                # A boundary: one deletion that cannot go on must not stop the others.
                logger.exception("deletion %s could not go on; it will be tried again", deletion.id)
                return True

    def _erase_blobs(self, deletion_ids: Sequence[str]) -> int:
        """Do D9 for those that are done up to D8 and nobody works on; return how many are left."""
        with ExitStack() as claims:
            found = [self._found(deletion_id) for deletion_id in deletion_ids]
            claimed = [one for one in found if claims.enter_context(self._claimed(one))]
            ready = [
                one for one in map(self._current, claimed) if one.progress.next is Step.ERASE_BLOBS
            ]
            done = sum(one.progress.next is None for one in map(self._current, claimed))
            return len(deletion_ids) - done - self._done_apart(ready)

    def _done_apart(self, ready: Sequence[Deletion]) -> int:
        """Do D9 for all at once, and if that fails for each alone; return how many are done."""
        done = 0
        groups = [ready] if ready else []
        while groups:
            group = groups.pop()
            try:
                done += len(self._steps.do(Step.ERASE_BLOBS, group))
            except Exception:
                # A boundary, as above.
                if len(group) == 1:
                    logger.exception(
                        "deletion %s could not go on; it will be tried again", group[0].id
                    )
                else:
                    groups += [[self._current(one)] for one in group]
        return done

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
            if step in TOGETHER:
                deletion = self._end(deletion, deadline)
            else:
                [deletion] = self._steps.do(step, [deletion])
        return deletion

    def _end(self, deletion: Deletion, deadline: float) -> Deletion:
        """Do D6 to D8, for the others that wait for that as well, unless one of them did."""
        held = try_take(self._lock_file)
        if held is None:
            if self._newest(deletion) is deletion:
                self._steps.note(deletion)
            held = self._queue(deadline)
        try:
            own = self._newest(deletion)
            return own if own.is_deleted else self._end_with_others(own)
        finally:
            give_back(held)

    def _queue(self, deadline: float) -> ByteLocks:
        return take(self._lock_file, min(deadline - self._clock.monotonic(), WAIT_SECONDS))

    def _end_with_others(self, own: Deletion) -> Deletion:
        waiting = records.evicted(self._database, limit=TOGETHER_MAX)
        others = [one for one in waiting if one.n != own.n and one.n not in self._apart]
        if others and own.n not in self._apart:
            try:
                return self._through([own, *others])
            except Exception:
                # A boundary: what is wrong with one of them must not stop the others.
                logger.exception("%d deletions could not go on at once", len(others) + 1)
                self._apart |= {own.n, *(one.n for one in others)}
                own = self._newest(own)
        return self._through([own])

    def _through(self, deletions: Sequence[Deletion]) -> Deletion:
        """Do D6 to D8 of each; return the first."""
        own = deletions[0].n
        for step in TOGETHER:
            due = [one for one in deletions if one.progress.next is step]
            done = {one.n: one for one in self._steps.do(step, due)} if due else {}
            deletions = [done.get(one.n, one) for one in deletions]
        return next(one for one in deletions if one.n == own)

    def _newest(self, deletion: Deletion) -> Deletion:
        """Return what is noted of a deletion, or what we found if that is not noted yet."""
        current = self._current(deletion)
        return deletion if current.evicted_at is None else current

    def _found(self, deletion_id: str) -> Deletion:
        deletion = records.find(self._database, deletion_id)
        if deletion is None:
            raise RuntimeError("a deletion's row is never removed")
        return deletion

    def _current(self, deletion: Deletion) -> Deletion:
        return self._found(deletion.id)

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

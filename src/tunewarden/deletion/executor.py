"""Runs deletions forward, and resumes them: start-up is recovery (D10).

One process at a time works on a deletion: it holds a kernel lock on the deletion's byte of one file,
which a crash releases, so that any other process can adopt it.

D6 to D8 are group-committed: `group_commit.py`.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, TypeVar

from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.deletion import case_rows, group_commit, records, unfinished
from tunewarden.deletion.case_rows import Case
from tunewarden.deletion.cases.case_runner import CaseRunner
from tunewarden.deletion.claims import Claims
from tunewarden.deletion.group_commit import GroupCommit
from tunewarden.deletion.group_runner import GroupRunner
from tunewarden.deletion.protocol import ANSWERED_AFTER, ORDER, Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import (
    MISSING,
    Attempt,
    Part,
    RequestedDeletion,
    record_refusal,
    request_deletion,
)
from tunewarden.deletion.step_runner import StepRunner
from tunewarden.deletion.steps import Steps
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry.artifacts import Artifact, ArtifactKind
from tunewarden.space import Ballast

T = TypeVar("T")

POLL_SECONDS = 0.002
# Deletions per group of erasures (D9).
BLOBS_GROUP_MAX = 32


@dataclass(frozen=True, slots=True)
class Joined:
    """A request that waits for another request's deletion, and the deletions that go with it (`numbers`).

    If a case began with its artifact, it waits for all of that.
    """

    caller: Caller
    kind: ArtifactKind
    artifact_id: str
    asked: RequestedDeletion
    numbers: tuple[int, ...]
    deadline: float


class Executor:
    """Runs deletions. One per process that may delete; they share the lock file."""

    group_commit_type: ClassVar[type[GroupCommit]] = GroupCommit

    def __init__(
        self,
        database: Database,
        steps: Steps,
        clock: Clock,
        lock_file: Path,
        *,
        bound_seconds: float,
        ballast: Ballast | None = None,
    ) -> None:
        self._database = database
        self._steps = steps
        self._clock = clock
        self._claims = Claims(lock_file)
        self._bound_seconds = bound_seconds
        self._runner = StepRunner(database, steps, clock, ballast)
        self._group_commit = self.group_commit_type(self._runner, clock, lock_file)
        self._groups = GroupRunner(self._runner, self._group_commit, self._claims)
        self._cases = CaseRunner(database, clock, self._runner, self._groups)

    def delete(
        self, caller: Caller, kind: ArtifactKind, artifact_id: str, attempt: Attempt
    ) -> Deletion:
        """Delete a model or a file; return when it, and what goes with it, is deleted (D8).

        Raises Error(NOT_FOUND), Error(FORBIDDEN) or Error(CONFLICT) with nothing changed;
        Error(UNAVAILABLE) with the deletion committed and continuing in the background (I13).
        """
        started = self.begin(caller, kind, artifact_id, attempt)
        if isinstance(started, Deletion):
            return started
        # Work on it here too: without a running server nobody else does.
        self._all_finished(started.asked, started.deadline)
        return self.answer(started)

    def begin(
        self, caller: Caller, kind: ArtifactKind, artifact_id: str, attempt: Attempt
    ) -> "Deletion | Joined":
        """Like `delete`, but do not wait for a deletion that another request began: return `Joined`."""
        log_size = self._steps.log_size()
        looking = replace(attempt, is_served=self.is_served)
        asked = self._runner.with_room(
            lambda: request_deletion(
                self._database, caller, kind, artifact_id, looking, log_size=log_size
            )
        )
        deadline = self._clock.monotonic() + self._bound_seconds
        if asked.part is Part.FIRST:
            return self._all_finished(asked, deadline)
        parts = records.parts_of(self._database, asked.deletion)
        numbers = tuple(one.n for one in (*parts, asked.deletion))
        return Joined(caller, kind, artifact_id, asked, numbers, deadline)

    def is_served(self, model: Artifact) -> bool:
        """Return whether a model is being used now, or was by requests that are not written yet."""
        return self._steps.is_served(model)

    def _all_finished(self, asked: RequestedDeletion, deadline: float) -> Deletion:
        """Finish a deletion, those that go with it up to D8, and the case that began with it; return it."""
        deletion, case = asked.deletion, asked.case
        if case is not None:
            self._finish_case(case, deletion, deadline)
        else:
            for part in records.parts_of(self._database, deletion):
                self._finished(part, deadline)
        return self._finished(deletion, deadline)

    def commit(self, work: Callable[[int], T]) -> T:
        """Return what `work` returns, which commits deletions (D3): it is called with the log's size before them."""
        log_size = self._steps.log_size()
        return self._runner.with_room(lambda: work(log_size))

    def finish_together(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """Finish committed deletions up to D8, with those that they include; return each as it is then.

        Like several requests at once, but with one thread: they share D6 to D8. What takes longer than the bound, or
        fails, is not deleted yet and continues in the background (I13).
        """
        deadline = self._clock.monotonic() + self._bound_seconds
        numbers = records.with_parts(self._database, [one.n for one in deletions])
        done = {one.n: one for one in self._finished_together(numbers, deadline)}
        left = [n for n in numbers if n not in done]
        for one in records.stored(self._database, left):
            with suppress(Error):  # logged there
                done[one.n] = self._finished(one, deadline)
        return [done.get(one.n, one) for one in deletions]

    def _finished_together(self, numbers: Sequence[int], deadline: float) -> list[Deletion]:
        """Finish those that no process works on; return them, or none if they failed as a group."""
        try:
            return self._groups.finish(numbers, deadline)
        except Exception as error:  # noqa: BLE001 - logged below
            # Outer boundary: each is tried alone after this.
            self._runner.log(error, f"{len(numbers)} deletions failed as a group")
            return []

    def _finish_case(self, case: Case, deletion: Deletion, deadline: float) -> None:
        try:
            self._cases.finish(case, deadline)
        except Exception as error:
            # Outer boundary, as for a deletion below.
            self._runner.log(error, f"the case {case.id} continues in the background")
            raise still_deleting(deletion, case) from error

    def is_over(self, join: "Joined") -> bool:
        """Return whether a joined deletion is done (D8): one read by primary key for each of its parts.

        Raises Error(UNAVAILABLE) after the timeout; the deletion continues.
        """
        case = join.asked.case
        if all(records.is_deleted(self._database, n) for n in join.numbers) and (
            case is None or case_rows.is_finished(self._database, case.n)
        ):
            return True
        if self._clock.monotonic() > join.deadline:
            raise still_deleting(join.asked.deletion, case)
        return False

    def answer(self, join: "Joined") -> Deletion:
        """Return the finished deletion to a retry of its request.

        Raises Error(NOT_FOUND) for a second request, never before the deletion is done (I5).
        """
        deletion = join.asked.deletion
        if join.asked.part is Part.REPEATED:
            return self._runner.find(deletion.id)
        missing = MISSING[join.kind](join.artifact_id)
        record_refusal(self._database, join.caller, join.kind, join.artifact_id, missing)
        raise missing

    def _finished(self, deletion: Deletion, deadline: float) -> Deletion:
        """Finish a deletion up to D8, here or by the process that works on it; return it."""
        if deletion.is_deleted:
            return deletion
        while True:
            with self._claims.claimed(deletion.n) as is_mine:
                if is_mine:
                    return self._run_or_still_deleting(deletion, deadline)
            current = self._runner.find(deletion.id)
            if current.is_deleted:
                return current
            if self._clock.monotonic() > deadline:
                raise still_deleting(deletion)
            self._clock.sleep(POLL_SECONDS)

    def resume(
        self, *, last: Step = ORDER[-1], may_go_on: Callable[[], bool] = lambda: True
    ) -> int:
        """Resume orphaned deletions, up to the step `last`; return how many are left.

        Calls back before each group of erasures (D9) whether to continue.
        """
        left = self._cases.resume()
        left += sum(self._resume_one(one) for one in unfinished.unanswered(self._database))
        if last is ANSWERED_AFTER:
            return left
        waiting = unfinished.unerased(self._database)
        for start in range(0, len(waiting), BLOBS_GROUP_MAX):
            if not may_go_on():
                return left + len(waiting) - start
            left += self._erase_blobs(waiting[start : start + BLOBS_GROUP_MAX])
        return left

    def _resume_one(self, deletion_id: str) -> bool:
        """Finish one deletion up to D8; return whether it is left."""
        deletion = self._runner.find(deletion_id)
        with self._claims.claimed(deletion.n) as is_mine:
            if not is_mine:
                return True
            try:
                return not self._run(self._runner.find(deletion.id), last=ANSWERED_AFTER).is_deleted
            except Exception as error:  # noqa: BLE001 - logged below
                # Outer boundary: one failing deletion must not stop the others.
                self._runner.log(error, f"deletion {deletion.id} failed; it will be retried")
                return True

    def _erase_blobs(self, deletion_ids: Sequence[str]) -> int:
        """Do D9 for finished deletions that no process works on; return how many are left."""
        with ExitStack() as claims:
            found = [self._runner.find(deletion_id) for deletion_id in deletion_ids]
            claimed = [one for one in found if claims.enter_context(self._claims.claimed(one.n))]
            ready = [one for one in map(self._again, claimed) if one.next_step is Step.ERASE_BLOBS]
            done = sum(one.next_step is None for one in map(self._again, claimed))
            return len(deletion_ids) - done - self._erase_together_or_alone(ready)

    def _erase_together_or_alone(self, ready: Sequence[Deletion]) -> int:
        """Do D9 for all together, and if that fails for each alone; return how many are done."""
        done = 0
        groups = [ready] if ready else []
        while groups:
            group = groups.pop()
            try:
                done += len(self._runner.do(Step.ERASE_BLOBS, group))
            except Exception as error:  # noqa: BLE001 - logged below
                # Outer boundary, as above.
                if len(group) == 1:
                    one = group[0].id
                    self._runner.log(
                        error, f"blobs of {one} are not erased yet; it will be retried"
                    )
                else:
                    groups += [[self._runner.find(one.id)] for one in group]
        return done

    def _run_or_still_deleting(self, deletion: Deletion, deadline: float) -> Deletion:
        try:
            return self._run(self._runner.find(deletion.id), last=ANSWERED_AFTER, deadline=deadline)
        except Exception as error:
            # Outer boundary: after the commit point nothing can be refused, only reported as not done yet.
            self._runner.log(error, f"deletion {deletion.id} continues in the background")
            raise still_deleting(deletion) from error

    def _run(self, deletion: Deletion, *, last: Step, deadline: float = float("inf")) -> Deletion:
        """Run the remaining steps in order, up to `last`; begin none after `deadline`."""
        stop = ORDER.index(last)
        while (step := deletion.next_step) is not None and ORDER.index(step) <= stop:
            if self._clock.monotonic() > deadline:
                raise TimeoutError(f"{step} was not begun before the deadline")
            if step in group_commit.STEPS:
                deletion = self._group_commit.lead_or_follow(deletion, deadline)
            else:
                [deletion] = self._runner.do(step, [deletion])
        return deletion

    def _again(self, deletion: Deletion) -> Deletion:
        return self._runner.find(deletion.id)


def still_deleting(deletion: Deletion, case: Case | None = None) -> Error:
    """Return the 503 for a deletion that is committed but not finished in time (I13), with its case if it has one."""
    begun = f"The deletion {deletion.id} is committed and continues: the {deletion.kind} serves no new requests and cannot"
    if case is not None:
        begun = f"The deletion case {case.id} is committed and continues: none of its {case.size} members serves new requests or can"
    return Error(
        Kind.UNAVAILABLE,
        f"{begun} come back. It is not finished yet; please retry.",
        code="deletion_in_progress",
        retry_after_seconds=1,
        deletion_case=None if case is None else case.id,
    )

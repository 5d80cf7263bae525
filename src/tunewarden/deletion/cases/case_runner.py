"""Runs the members of a case forward in groups, and ends the case when all are deleted.

A member is a deletion like any other: whichever process claims it does its next step, and one that fails does not stop
the others. Nothing is kept in memory: after a crash the rows say what is left.
"""

from collections.abc import Sequence
from functools import partial

from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.deletion import case_rows
from tunewarden.deletion.case_rows import Case
from tunewarden.deletion.cases.case_summary import CaseSummaries
from tunewarden.deletion.group_runner import GROUP_MAX, GroupRunner
from tunewarden.deletion.step_runner import StepRunner

POLL_SECONDS = 0.01


class CaseRunner:
    """One per process that deletes."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        runner: StepRunner,
        groups: GroupRunner,
    ) -> None:
        self._database = database
        self._clock = clock
        self._runner = runner
        self._groups = groups
        steps = runner.steps
        self._summaries = CaseSummaries(database, clock, steps.open_log, steps.mark_log)

    def finish(self, case: Case, deadline: float) -> None:
        """Delete all members, and log the summary. Raises TimeoutError at the deadline."""
        while self._advance(case.n, deadline):
            if self._clock.monotonic() > deadline:
                raise TimeoutError("members of the case are not deleted yet")
            # Others work on them, or they failed.
            self._clock.sleep(POLL_SECONDS)
        self._ended(case.n)

    def resume(self) -> int:
        """Resume the cases that nobody finished; return how many are left."""
        left = 0
        for case in case_rows.unfinished(self._database):
            try:
                if self._advance(case.n, float("inf")):
                    left += 1
                else:
                    self._ended(case.n)
            except Exception as error:  # noqa: BLE001 - logged below
                # Outer boundary: one failing case must not stop what follows.
                self._runner.log(error, f"the case {case.id} failed; it will be retried")
                left += 1
        return left

    def _ended(self, case_n: int) -> None:
        self._runner.with_room(partial(self._summaries.finish, case_n))

    def _advance(self, case_n: int, deadline: float) -> bool:
        """Work once on each member that is not deleted; return whether any is left. Raises TimeoutError."""
        after = 0
        while page := case_rows.undeleted(self._database, case_n, after=after, limit=GROUP_MAX):
            if self._clock.monotonic() > deadline:
                raise TimeoutError("members of the case are not deleted yet")
            self._delete(page, deadline)
            after = page[-1][0]
        return bool(case_rows.undeleted(self._database, case_n, after=0, limit=1))

    def _delete(self, page: Sequence[tuple[int, str]], deadline: float) -> None:
        """Bring those of a page that no process works on up to D8: together, and if that fails each alone."""
        groups = [[n for n, _ in page]]
        while groups:
            group = groups.pop()
            try:
                self._groups.finish(group, deadline)
            except Exception as error:  # noqa: BLE001 - logged below
                # Outer boundary, as above.
                self._runner.log(error, f"{len(group)} members of a case failed")
                if len(group) > 1:
                    groups += [[one] for one in group]

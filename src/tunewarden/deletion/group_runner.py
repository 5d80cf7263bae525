"""Runs committed deletions forward as one group, with one thread: they share every step up to D8.

For bulk deletions and cases: faster than as many requests at once. It stores nothing between D3 and D7, unless another
process leads a group commit at that moment: like a single deletion (docs/decisions/0003), and a crash leaves the same.
(docs/decisions/0047)
"""

from collections.abc import Sequence
from contextlib import ExitStack

from tunewarden.deletion import records
from tunewarden.deletion.claims import Claims
from tunewarden.deletion.group_commit import GroupCommit
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.step_runner import StepRunner

# Deletions in one group. A group syncs files a dozen times; other deletions wait for it, a fraction of a second.
GROUP_MAX = 64


class GroupRunner:
    """One per process that deletes."""

    def __init__(self, runner: StepRunner, group_commit: GroupCommit, claims: Claims) -> None:
        self._runner = runner
        self._group_commit = group_commit
        self._claims = claims

    def finish(self, numbers: Sequence[int], deadline: float) -> list[Deletion]:
        """Bring those that no process works on up to D8; return them.

        Raises TimeoutError at the deadline, in seconds of the clock, and what the steps raise; then each is to be tried
        alone.
        """
        with ExitStack() as claims:
            mine = [n for n in numbers if claims.enter_context(self._claims.claimed(n))]
            # Read under the claim: another process may have worked on them before.
            found = records.stored(self._runner.database, mine)
            done = [one for one in found if one.is_deleted]
            due = [one for one in found if not one.is_deleted]
            if not due:
                return done
            unstored = {one.n for one in due if one.evicted_at is None}
            evicted = self._runner.evict(due)
            return [*done, *self._group_commit.lead_or_follow_all(evicted, unstored, deadline)]

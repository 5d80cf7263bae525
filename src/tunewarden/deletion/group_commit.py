"""Group commit of D6 to D8: concurrent deletions share one rewrite of the keyring and one append to the log.

All deletions write the same few files in these steps, so one process at a time runs them: the leader holds byte 0
of the lock file. A deletion that finds it held stores its results of D4 and D5 (its row is then EVICTED), and
queues for the lock as a follower. The leader includes every EVICTED deletion, in whatever process it waits. When
a follower gets the lock, it finds its deletion finished, or leads in turn. If a leader dies, the kernel releases
the lock, and the next leader resumes where it stopped. (docs/decisions/0009)
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tunewarden.clock import Clock
from tunewarden.deletion import records, unfinished
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.step_runner import StepRunner
from tunewarden.locks import WAIT_SECONDS, ByteLocks, give_back, take, try_take

STEPS = (Step.ERASE_KEY, Step.LOG, Step.FINISH)
# The largest group: small enough not to add noticeable latency.
GROUP_MAX = 32


class GroupCommit:
    """One per process that deletes; they share the lock file."""

    def __init__(self, runner: StepRunner, clock: Clock, lock_file: Path) -> None:
        self._runner = runner
        self._clock = clock
        self._lock_file = lock_file
        # Numbers of deletions (not artifacts) whose group failed; each is run alone from then on.
        self._alone: set[int] = set()

    def lead_or_follow(self, deletion: Deletion, deadline: float) -> Deletion:
        """Return the deletion, finished (D8): by this process as leader, or by another leader.

        Raises TimeoutError at the deadline, in seconds of the clock, and what the steps raise.
        """
        lock = try_take(self._lock_file)
        if lock is None:
            if self._stored(deletion) is deletion:
                self._runner.with_room(partial(self._runner.steps.note, deletion))
            lock = self._wait_for_turn(deadline)
        try:
            own = self._stored(deletion)
            return own if own.is_deleted else self._lead(own)
        finally:
            give_back(lock)

    def lead_or_follow_all(
        self, deletions: Sequence[Deletion], unstored: set[int], deadline: float
    ) -> list[Deletion]:
        """Like `lead_or_follow`, for several as one group; return them in this order. If it raises, each is run alone.

        `unstored`: the numbers of those whose D4 and D5 are only in memory, so that no other leader includes them.
        """
        lock = try_take(self._lock_file)
        if lock is None:
            due = [one for one in deletions if one.n in unstored]
            if due:
                self._runner.with_room(partial(self._runner.steps.note, *due))
            lock = self._wait_for_turn(deadline)
            unstored = set()
        try:
            again = [one.n for one in deletions if one.n not in unstored]
            found = {one.n: one for one in records.stored(self._runner.database, again)}
            own = [found.get(one.n, one) for one in deletions]
            waiting = unfinished.evicted(self._runner.database, limit=GROUP_MAX)
            numbers = {one.n for one in own}
            followers = [one for one in waiting if one.n not in numbers | self._alone]
            try:
                return list(self._commit([*own, *followers])[: len(own)])
            except Exception:
                self._alone |= {one.n for one in (*own, *followers)}
                raise
        finally:
            give_back(lock)

    def _wait_for_turn(self, deadline: float) -> ByteLocks:
        return take(self._lock_file, min(deadline - self._clock.monotonic(), WAIT_SECONDS))

    def _lead(self, own: Deletion) -> Deletion:
        waiting = unfinished.evicted(self._runner.database, limit=GROUP_MAX)
        followers = [one for one in waiting if one.n != own.n and one.n not in self._alone]
        if followers and own.n not in self._alone:
            try:
                return self._commit([own, *followers])[0]
            except Exception as error:  # noqa: BLE001 - logged below
                # Outer boundary: one failing deletion must not stop the others.
                self._runner.log(error, f"{len(followers) + 1} deletions failed as a group")
                self._alone |= {own.n, *(one.n for one in followers)}
                own = self._stored(own)
        return self._commit([own])[0]

    def _commit(self, group: Sequence[Deletion]) -> Sequence[Deletion]:
        """Do D6 to D8 of each that needs it; return them."""
        for step in STEPS:
            due = [one for one in group if one.next_step is step]
            done = {one.n: one for one in self._runner.do(step, due)} if due else {}
            group = [done.get(one.n, one) for one in group]
        return group

    def _stored(self, deletion: Deletion) -> Deletion:
        """Return what is stored of a deletion; `deletion` itself if D5 is not stored yet."""
        current = self._runner.find(deletion.id)
        return deletion if current.evicted_at is None else current

"""Runs all fine-tuning jobs of a data directory: validate, schedule, train, clean up.

All its state is in the rows, so that a killed runner is replaced by the next
one. One thread works on each job and holds the job's byte of a lock file; its trainer inherits
that lock, so that two trainers never work on one job.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunewarden.clock import Throttle
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import datasets, jobs, training, transitions
from tunewarden.finetuning.context import TrainingContext
from tunewarden.finetuning.datasets import InvalidDataset
from tunewarden.finetuning.endings import Cancelled, JobFailed, Stopped
from tunewarden.finetuning.jobs import Job
from tunewarden.finetuning.queue import Waiting, next_job
from tunewarden.finetuning.states import State
from tunewarden.finetuning.training import Training
from tunewarden.finetuning.transitions import Unfinished
from tunewarden.locks import ByteLocks

POLL_SECONDS = 0.05
# Retry delay after a failure, or if another process held the job.
RETRY_SECONDS = 1.0
# A poll reads every unfinished job. If that takes long, it is made less often:
# at most this share of the time is spent on it.
LOOKING_PART = 0.2
# One per organization: a long validation delays only its own organization's.
VALIDATIONS_MAX = 4
FAILURES_MAX = 3

logger = logging.getLogger(__name__)


def run(context: TrainingContext, stop: threading.Event) -> None:
    """Run until `stop` is set, then until every trainer has saved its state."""
    runner = Runner(context, stop)
    while not stop.wait(POLL_SECONDS):
        runner.look()
    runner.join()


@dataclass(slots=True)
class _Work:
    """A thread working on a job."""

    thread: threading.Thread
    organization_id: str
    project_id: str
    is_training: bool
    is_validation: bool


class Runner:
    """The running threads; none of this state needs to survive."""

    def __init__(self, context: TrainingContext, stop: threading.Event) -> None:
        self._context = context
        self._stop = stop
        self._works: dict[int, _Work] = {}
        self._not_before: dict[int, float] = {}
        self._failures: Counter[int] = Counter()
        self._turn = 0
        self._logged = Throttle(context.clock)
        self._served: dict[str, int] = {}
        self._validated: dict[str, int] = {}
        self._seen: object = None
        self._look_at = 0.0
        self._rest_until = 0.0
        with context.database.read() as tx:
            last = transitions.last_starts(tx)
        for organization, project in sorted(last, key=lambda ids: last[ids]):
            self._served[organization] = self._served[project] = self._next_turn()

    def look(self) -> None:
        """Start all work that can start now; do not block."""
        now = self._context.clock.monotonic()
        if now < self._rest_until:
            return
        ended = [n for n, work in self._works.items() if not work.thread.is_alive()]
        for n in ended:
            self._works.pop(n).thread.join()
        try:
            stamp = self._context.database.stamp()
            if stamp == self._seen and not ended and now < self._look_at:
                return
            self._seen, self._look_at = stamp, now + RETRY_SECONDS
            with self._context.database.read() as tx:
                unfinished = transitions.unfinished(tx)
            free = [job for job in unfinished if self._is_free(job, now)]
            self._end_all(free)
            # Jobs wait while plaintext could reach a disk, or the disk is full.
            self._context.files.memory.check()
            self._context.database.check_room()
            self._start_validations(free)
            self._start_trainings(free)
            took = self._context.clock.monotonic() - now
            self._rest_until = now + took / LOOKING_PART
        except Error as error:
            if self._logged.allows(error.message):
                logger.warning("%s", error.message)

    def join(self) -> None:
        """Wait for all threads; `stop` must be set."""
        for work in self._works.values():
            work.thread.join()

    def _is_free(self, job: Unfinished, now: float) -> bool:
        return job.n not in self._works and self._not_before.get(job.n, now) <= now

    def _end_all(self, free: list[Unfinished]) -> None:
        for job in free:
            if job.state.has_ended:
                self._work(job, self._wind_up)
            elif job.state is State.PAUSING:
                with self._context.database.write(below_floor=True) as tx:
                    transitions.paused(tx, job.n)

    def _start_validations(self, free: list[Unfinished]) -> None:
        waiting = _waiting(free, {State.VALIDATING, State.HELD})
        while self._count(lambda work: work.is_validation) < VALIDATIONS_MAX:
            busy = {one.organization_id for one in self._works.values() if one.is_validation}
            waiting = {one: job for one, job in waiting.items() if one.organization_id not in busy}
            chosen = next_job(waiting, {}, self._validated)
            if chosen is None:
                return
            job = waiting.pop(chosen)
            if self._work(job, self._validate, is_validation=True):
                self._note(self._validated, job)

    def _start_trainings(self, free: list[Unfinished]) -> None:
        # Jobs interrupted by a crash come first: they had their turn.
        adopted = _waiting(free, {State.RUNNING})
        queued = _waiting(free, {State.QUEUED})
        while self._count(lambda work: work.is_training) < self._context.jobs_max:
            running = Counter(
                one
                for work in self._works.values()
                if work.is_training
                for one in (work.organization_id, work.project_id)
            )
            candidates = adopted or queued
            chosen = next_job(candidates, running, self._served)
            if chosen is None:
                return
            job = candidates.pop(chosen)
            if self._work(job, self._train, is_training=True):
                self._note(self._served, job)

    def _work(
        self,
        job: Unfinished,
        work: Callable[[Job, ByteLocks], None],
        *,
        is_training: bool = False,
        is_validation: bool = False,
    ) -> bool:
        """Start a thread for a job, unless another process holds its lock."""
        locks = ByteLocks(self._context.lock_file)
        if not locks.try_exclusive(job.n):
            locks.close()
            self._try_later(job.n)
            return False
        thread = threading.Thread(
            target=self._guarded, args=(job.n, work, locks), name=f"job {job.n}", daemon=True
        )
        self._works[job.n] = _Work(
            thread, job.organization_id, job.project_id, is_training, is_validation
        )
        thread.start()
        return True

    def _guarded(self, n: int, work: Callable[[Job, ByteLocks], None], locks: ByteLocks) -> None:
        try:
            with self._context.database.read() as tx:
                job = jobs.by_n(tx, n)
            work(job, locks)
            self._failures.pop(n, None)
        except Error as error:
            if error.kind is Kind.STORAGE_FULL:  # it waits for disk space: not the job's failure
                self._try_later(n)
                return
            logger.warning("job %d failed and will be retried: %s", n, error.message)
            self._failed(n, JobFailed(error.code or "storage_failed", error.message))
        except Exception:
            # Outer boundary: one failing job must not stop the others.
            logger.exception("job %d failed", n)
            text = "The server had an error while running this job. Its log has the details; contact the operator."
            self._failed(n, JobFailed("server_error", text))
        finally:
            locks.close()

    def _failed(self, n: int, failed: JobFailed) -> None:
        """Retry the job later, or fail it after too many attempts."""
        self._try_later(n)
        self._failures[n] += 1
        if self._failures[n] < FAILURES_MAX:
            return
        try:
            with self._context.database.read() as tx:
                job = jobs.by_n(tx, n)
            training.fail(self._context, job, failed)
        except Error as error:
            logger.warning("%s", error.message)

    def _train(self, job: Job, locks: ByteLocks) -> None:
        with self._context.database.write() as tx:
            is_ours = transitions.started(tx, job)
        if is_ours:
            Training(self._context, job, locks, self._stop).run()

    def _wind_up(self, job: Job, _: ByteLocks) -> None:
        training.wind_up(self._context, job)

    def _validate(self, job: Job, _: ByteLocks) -> None:
        """Validate the job's files, then queue it."""
        try:
            self._check(job, "training", job.training_n)
            if job.validation_n is not None:
                self._check(job, "validation", job.validation_n)
            with self._context.database.write() as tx:
                transitions.validated(tx, job)
        except JobFailed as failed:
            training.fail(self._context, job, failed)
        except (Cancelled, Stopped):
            pass

    def _check(self, job: Job, file: str, n: int) -> None:
        param = f"{file}_file"
        content = self._context.files.content(training.active_file(self._context, n, param))
        try:
            datasets.check(self._watched(job, content), job.method, file=file)
        except InvalidDataset as invalid:
            raise JobFailed(invalid.code, invalid.message, param) from invalid
        finally:
            content.close()

    def _watched(self, job: Job, content: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks until the job is cancelled or the server stops."""
        for chunk in content:
            if self._stop.is_set():
                raise Stopped
            if transitions.state_now(self._context.database, job.n).has_ended:
                raise Cancelled
            yield chunk

    def _count(self, matches: Callable[[_Work], bool]) -> int:
        return sum(map(matches, self._works.values()))

    def _try_later(self, n: int) -> None:
        self._not_before[n] = self._context.clock.monotonic() + RETRY_SECONDS

    def _note(self, served: dict[str, int], job: Unfinished) -> None:
        served[job.organization_id] = served[job.project_id] = self._next_turn()

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn


def _waiting(free: list[Unfinished], states: set[State]) -> dict[Waiting, Unfinished]:
    return {
        Waiting(job.n, job.organization_id, job.project_id): job
        for job in free
        if job.state in states
    }

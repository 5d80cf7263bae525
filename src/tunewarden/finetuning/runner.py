"""Runs all fine-tuning jobs of a data directory: validates, queues, trains and winds up.

It reads what there is to do from the rows alone, so that whoever is killed is succeeded by the next
runner. Each job is worked on by one thread, which holds the job's byte of a lock file; its trainer has
that lock too, so that no two trainers ever work on one job.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunewarden.errors import Error
from tunewarden.finetuning import datasets, jobs, training, transitions
from tunewarden.finetuning.datasets import InvalidDataset
from tunewarden.finetuning.jobs import ENDED, Job, Status, Wish
from tunewarden.finetuning.outcomes import Cancelled, Hopeless, Stopped
from tunewarden.finetuning.parts import Parts
from tunewarden.finetuning.queue import Waiting, next_job
from tunewarden.finetuning.training import Training
from tunewarden.finetuning.transitions import Unfinished
from tunewarden.locks import ByteLocks

POLL_SECONDS = 0.05
# What could not be done, or was held by another, is tried again after this.
RETRY_SECONDS = 1.0
# A look reads every unfinished job. Where there are so many that it takes long, it is taken less often:
# at most this part of the time is spent on it.
LOOKING_PART = 0.2
VALIDATIONS_MAX = 1
FAILURES_MAX = 3

logger = logging.getLogger(__name__)


def run(parts: Parts, stop: threading.Event) -> None:
    """Work until `stop` is set, and then until every trainer has handed over what it can."""
    runner = Runner(parts, stop)
    while not stop.wait(POLL_SECONDS):
        runner.look()
    runner.join()


@dataclass(slots=True)
class _Work:
    """A thread that works on a job."""

    thread: threading.Thread
    project_id: str
    is_training: bool
    is_validation: bool


class Runner:
    """What is going on, and since when; nothing of it needs to survive."""

    def __init__(self, parts: Parts, stop: threading.Event) -> None:
        self._parts = parts
        self._stop = stop
        self._works: dict[int, _Work] = {}
        self._not_before: dict[int, float] = {}
        self._failures: Counter[int] = Counter()
        self._turn = 0
        self._served: dict[str, int] = {}
        self._validated: dict[str, int] = {}
        self._seen: object = None
        self._look_at = 0.0
        self._rest_until = 0.0
        with parts.database.read() as tx:
            last = transitions.last_starts(tx)
        for project in sorted(last, key=lambda project: last[project]):
            self._served[project] = self._next_turn()

    def look(self) -> None:
        """Start what can be started now; return at once."""
        now = self._parts.clock.monotonic()
        if now < self._rest_until:
            return
        ended = [n for n, work in self._works.items() if not work.thread.is_alive()]
        for n in ended:
            self._works.pop(n).thread.join()
        try:
            stamp = self._parts.database.stamp()
            if stamp == self._seen and not ended and now < self._look_at:
                return
            self._seen, self._look_at = stamp, now + RETRY_SECONDS
            with self._parts.database.read() as tx:
                unfinished = transitions.unfinished(tx)
            self._start_all([job for job in unfinished if self._is_free(job, now)])
            took = self._parts.clock.monotonic() - now
            self._rest_until = now + took / LOOKING_PART
        except Error as error:
            logger.warning("%s", error.message)

    def join(self) -> None:
        """Return when every thread has ended: `stop` was set before."""
        for work in self._works.values():
            work.thread.join()

    def _is_free(self, job: Unfinished, now: float) -> bool:
        return job.n not in self._works and self._not_before.get(job.n, now) <= now

    def _start_all(self, free: list[Unfinished]) -> None:
        for job in free:
            if job.status in ENDED:
                self._work(job, self._wind_up)
            elif job.status is Status.RUNNING and job.wish is Wish.PAUSE:
                with self._parts.database.write() as tx:
                    transitions.paused(tx, job.n)
        self._start_validations(free)
        self._start_trainings(free)

    def _start_validations(self, free: list[Unfinished]) -> None:
        waiting = _waiting(free, lambda job: job.status is Status.VALIDATING_FILES)
        while self._count(lambda work: work.is_validation) < VALIDATIONS_MAX:
            chosen = next_job(waiting, {}, self._validated)
            if chosen is None:
                return
            job = waiting.pop(chosen)
            if self._work(job, self._validate, is_validation=True):
                self._validated[job.project_id] = self._next_turn()

    def _start_trainings(self, free: list[Unfinished]) -> None:
        # Those that ran when somebody was killed go on first: they had their turn.
        adopted = _waiting(free, lambda job: job.status is Status.RUNNING and job.wish is None)
        queued = _waiting(free, _is_startable)
        while self._count(lambda work: work.is_training) < self._parts.jobs_max:
            running = Counter(work.project_id for work in self._works.values() if work.is_training)
            candidates = adopted or queued
            chosen = next_job(candidates, running, self._served)
            if chosen is None:
                return
            job = candidates.pop(chosen)
            if self._work(job, self._train, is_training=True):
                self._served[job.project_id] = self._next_turn()

    def _work(
        self,
        job: Unfinished,
        work: Callable[[Job, ByteLocks], None],
        *,
        is_training: bool = False,
        is_validation: bool = False,
    ) -> bool:
        """Start a thread on a job, unless another process holds it."""
        locks = ByteLocks(self._parts.lock_file)
        if not locks.try_exclusive(job.n):
            locks.close()
            self._try_later(job.n)
            return False
        thread = threading.Thread(
            target=self._guarded, args=(job.n, work, locks), name=f"job {job.n}", daemon=True
        )
        self._works[job.n] = _Work(thread, job.project_id, is_training, is_validation)
        thread.start()
        return True

    def _guarded(self, n: int, work: Callable[[Job, ByteLocks], None], locks: ByteLocks) -> None:
        try:
            with self._parts.database.read() as tx:
                job = jobs.by_n(tx, n)
            work(job, locks)
            self._failures.pop(n, None)
        except Error as error:
            logger.warning("job %d could not go on: %s", n, error.message)
            self._failed(n, Hopeless(error.code or "storage_failed", error.message))
        except Exception:
            # A boundary: one job that cannot go on must not stop the others.
            logger.exception("job %d could not go on", n)
            text = "The server made a mistake in this job. Its log says more; tell the operator."
            self._failed(n, Hopeless("server_error", text))
        finally:
            locks.close()

    def _failed(self, n: int, hopeless: Hopeless) -> None:
        """Try it again in a moment, or let the job fail when that was in vain."""
        self._try_later(n)
        self._failures[n] += 1
        if self._failures[n] < FAILURES_MAX:
            return
        try:
            with self._parts.database.read() as tx:
                job = jobs.by_n(tx, n)
            training.fail(self._parts, job, hopeless)
        except Error as error:
            logger.warning("%s", error.message)

    def _train(self, job: Job, locks: ByteLocks) -> None:
        with self._parts.database.write() as tx:
            is_ours = transitions.started(tx, job)
        if is_ours:
            Training(self._parts, job, locks, self._stop).run()

    def _wind_up(self, job: Job, _: ByteLocks) -> None:
        training.wind_up(self._parts, job)

    def _validate(self, job: Job, _: ByteLocks) -> None:
        """Read the job's files once, and let it wait for its turn if they can be trained on."""
        try:
            self._check(job, "training", job.training_n)
            if job.validation_n is not None:
                self._check(job, "validation", job.validation_n)
            with self._parts.database.write() as tx:
                transitions.validated(tx, job)
        except Hopeless as hopeless:
            training.fail(self._parts, job, hopeless)
        except (Cancelled, Stopped):
            pass

    def _check(self, job: Job, file: str, n: int) -> None:
        param = f"{file}_file"
        content = self._parts.files.content(training.active_file(self._parts, n, param))
        try:
            datasets.check(self._watched(job, content), job.method, file=file)
        except InvalidDataset as invalid:
            raise Hopeless(invalid.code, invalid.message, param) from invalid
        finally:
            content.close()

    def _watched(self, job: Job, content: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks while anybody still wants to know."""
        for chunk in content:
            if self._stop.is_set():
                raise Stopped
            if transitions.wish_of(self._parts.database, job.n)[0] in ENDED:
                raise Cancelled
            yield chunk

    def _count(self, matches: Callable[[_Work], bool]) -> int:
        return sum(map(matches, self._works.values()))

    def _try_later(self, n: int) -> None:
        self._not_before[n] = self._parts.clock.monotonic() + RETRY_SECONDS

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn


def _waiting(
    free: list[Unfinished], matches: Callable[[Unfinished], bool]
) -> dict[Waiting, Unfinished]:
    return {Waiting(job.n, job.project_id): job for job in free if matches(job)}


def _is_startable(job: Unfinished) -> bool:
    return job.status is Status.QUEUED and not job.is_paused and job.wish is None

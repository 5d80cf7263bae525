"""One job and its trainers: from its turn in the queue to its end, a pause, or the server's stop.

What a trainer hands over is durable before it is told so. Whatever is killed, the job goes on from the
last state that was handed over.
"""

import logging
import os
from pathlib import Path
from threading import Event

from tunewarden.artifacts.blobs import BlobErased
from tunewarden.artifacts.keyring import KeyErased
from tunewarden.errors import Error
from tunewarden.finetuning import jobs, outcomes, taking, transitions
from tunewarden.finetuning.jobs import ENDED, Job, Wish
from tunewarden.finetuning.outcomes import Cancelled, Died, Hopeless, PausedNow, Stopped
from tunewarden.finetuning.parts import Parts
from tunewarden.finetuning.trainer_process import Data, TrainerEnded, TrainerProcess
from tunewarden.locks import ByteLocks
from tunewarden.registry import artifacts, bases, files, models
from tunewarden.registry.bases import BaseKind
from tunewarden.registry.files import File
from tunewarden.serving import scratch
from tunewarden.trainer.messages import (
    Checkpoint,
    Failed,
    Finished,
    Hyperparameters,
    Paused,
    Plan,
    Progress,
    State,
    Task,
    Tokens,
    Told,
)

POLL_SECONDS = 0.1
# How long a trainer may take to hand over its state, when it is paused and when the server stops.
PAUSE_SECONDS = 60.0
STOP_SECONDS = 8.0
EXIT_SECONDS = 2.0
# A trainer that says nothing for so long is stuck.
SILENCE_SECONDS = 3600.0
# How often it may die without having saved anything new.
DEATHS_MAX = 3
RETRY_SECONDS = 1.0
# Metrics are told each second at first, and ever less often in a job of days: some thousands in all.
TELL_SECONDS = 1.0
TELLINGS_MAX = 1000

logger = logging.getLogger(__name__)


class Training:
    """One running job; the caller holds `locks`, its byte of the jobs' lock file."""

    def __init__(self, parts: Parts, job: Job, locks: ByteLocks, stop: Event) -> None:
        self._parts = parts
        self._job = job
        self._locks = locks
        self._stop = stop
        self._began = parts.clock.monotonic()
        self._told = self._began - TELL_SECONDS
        self._extra_tellings = 0
        self._has_progressed = False
        self._asked_at: float | None = None
        self._stopping_at: float | None = None

    def run(self) -> None:
        """Work until the job has ended or is paused, or the server stops. Raises Error."""
        deaths = 0
        while True:
            self._has_progressed = False
            try:
                self._attempt()
                break
            except Stopped:
                return
            except PausedNow:
                if self._is_paused():
                    return
                continue  # It was resumed meanwhile.
            except Cancelled:
                break
            except Hopeless as hopeless:
                fail(self._parts, self._job, hopeless)
                break
            except (Died, Error) as failure:
                deaths = 1 if self._has_progressed else deaths + 1
                if deaths >= DEATHS_MAX:
                    fail(self._parts, self._job, outcomes.given_up(failure, deaths))
                    break
                logger.warning("job %s is tried again: %s", self._job.id, failure)
            if self._stop.wait(RETRY_SECONDS):
                return
        wind_up(self._parts, self._job)

    def _attempt(self) -> None:
        """Run a trainer from the last state to the end of the job. Raises how else it came out."""
        with self._parts.database.read() as tx:
            self._job = jobs.by_n(tx, self._job.n)
        self._asked_at = None
        self._look(None)
        scratch.erase_all_of(self._parts.scratch, self._job.internal_id)
        directory = scratch.new_directory(self._parts.scratch, self._job.internal_id)
        try:
            trainer = self._start(directory)
            try:
                self._follow(trainer, directory)
            except TrainerEnded as ended:
                raise self._died(trainer, ended) from ended
            finally:
                trainer.end()
        except OSError as error:
            raise outcomes.no_room() from error
        finally:
            scratch.erase(directory)

    def _died(self, trainer: TrainerProcess, ended: TrainerEnded) -> Died:
        status = trainer.end(patience_seconds=EXIT_SECONDS)
        logger.warning(
            "the trainer of job %s ended (%s) with status %d: %s",
            self._job.id,
            ended,
            status,
            trainer.last_words,
        )
        self._look(None)  # It may have ended because we do.
        return Died(status)

    def _start(self, directory: Path) -> TrainerProcess:
        """Start a trainer on what it may work with. Raises Hopeless if that is gone; OSError, Error."""
        job, parts = self._job, self._parts
        base = bases.find(parts.database, job.base)
        if base is None or base.kind is not BaseKind.LOCAL or not _is_base(Path(base.location)):
            raise outcomes.base_gone(job.base)
        data = self._data()
        for name in ("work", "start", "resume"):
            (directory / name).mkdir(mode=0o700)
        start = self._unseal_start(directory / "start")
        step = parts.states.unseal(job, directory / "resume")
        if job.state_blobs:
            with parts.database.write() as tx:
                transitions.resumed(tx, job, step)
        processors = len(os.sched_getaffinity(0))
        task = Task(
            base=base.location,
            method=job.method.value,
            start=str(directory / "start") if start else None,
            resume=None if step is None else str(directory / "resume"),
            training=-1,
            validation=None,
            scratch=str(directory / "work"),
            seed=job.seed,
            hyperparameters=Hyperparameters(**job.hyperparameters),
            rank=parts.rank,
            threads=parts.threads or max(1, processors // max(1, parts.jobs_max)),
            state_seconds=parts.state_seconds,
        )
        return TrainerProcess(task, data, keeps_open=self._locks.fileno())

    def _data(self) -> Data:
        job, parts = self._job, self._parts
        training = active_file(parts, job.training_n, "training_file")
        validation = None
        if job.validation_n is not None:
            file = active_file(parts, job.validation_n, "validation_file")
            validation = parts.files.content(file)
        return Data(parts.files.content(training), validation)

    def _unseal_start(self, directory: Path) -> bool:
        """Write the model that the job starts from, if it starts from one."""
        if self._job.start_n is None:
            return False
        model = models.by_n(self._parts.database, self._job.start_n)
        if not artifacts.is_active(self._parts.database, model.n):
            raise outcomes.model_gone(model.id)
        try:
            self._parts.imports.unseal(model, directory)
        except (KeyErased, BlobErased) as error:
            raise outcomes.model_gone(model.id) from error
        return True

    def _follow(self, trainer: TrainerProcess, directory: Path) -> None:
        """Do what the trainer says until the job has succeeded."""
        heard_at = self._parts.clock.monotonic()
        while True:
            message = trainer.receive(POLL_SECONDS)
            self._look(trainer)
            now = self._parts.clock.monotonic()
            if message is not None:
                heard_at = now
                if self._took(message, trainer, directory):
                    return
            elif now - heard_at > SILENCE_SECONDS:
                raise TrainerEnded("it said nothing for too long")

    def _took(self, message: Told, trainer: TrainerProcess, directory: Path) -> bool:
        """Do what one message asks for; return whether it was the last one."""
        job, parts, work = self._job, self._parts, directory / "work"
        match message:
            case Tokens():
                with parts.database.write() as tx:
                    transitions.counted(tx, job, message)
            case Plan():
                with parts.database.write() as tx:
                    transitions.planned(tx, job, message)
            case Progress():
                self._tell(message)
            case Checkpoint():
                taking.take_checkpoint(parts, job, message, work)
                trainer.taken()
            case State():
                taking.take_state(parts, job, message, work)
                self._has_progressed = True
                trainer.taken()
            case Finished():

                def let_go() -> None:
                    trainer.end()
                    scratch.erase(directory)

                taking.finish(parts, job, message, work, let_go)
                return True
            case Paused():
                trainer.end(patience_seconds=EXIT_SECONDS)
                self._look(None)
                raise PausedNow
            case Failed():
                raise Hopeless(message.code, message.message, message.param)
        return False

    def _look(self, trainer: TrainerProcess | None) -> None:
        """Do what is wished of the trainer. Raises what that comes to: at once if there is none."""
        status, wish = transitions.wish_of(self._parts.database, self._job.n)
        if status in ENDED:
            raise Cancelled
        is_stopping = self._stop.is_set()
        if not is_stopping and wish is not Wish.PAUSE:
            return
        outcome = PausedNow if wish is Wish.PAUSE else Stopped
        if trainer is None:
            raise outcome
        now = self._parts.clock.monotonic()
        if self._asked_at is None:
            trainer.ask_to_pause()
            self._asked_at = now
        if is_stopping and self._stopping_at is None:
            self._stopping_at = now
        if now - self._asked_at > PAUSE_SECONDS:
            raise outcome
        if self._stopping_at is not None and now - self._stopping_at > STOP_SECONDS:
            raise outcome

    def _tell(self, progress: Progress) -> None:
        """Write metrics, but not more often than somebody wants to read them."""
        now = self._parts.clock.monotonic()
        pause = max(TELL_SECONDS, (now - self._began) / TELLINGS_MAX)
        if now - self._told < pause:
            is_end = progress.step == progress.steps or float(progress.epoch).is_integer()
            if not is_end or self._extra_tellings >= TELLINGS_MAX:
                return
            self._extra_tellings += 1
        self._told = now
        try:
            with self._parts.database.write() as tx:
                transitions.progressed(tx, self._job, progress)
        except Error as error:  # Nothing that a job should begin again for.
            logger.warning("metrics of job %s were not written: %s", self._job.id, error.message)

    def _is_paused(self) -> bool:
        with self._parts.database.write() as tx:
            return transitions.paused(tx, self._job.n)


def fail(parts: Parts, job: Job, hopeless: Hopeless) -> None:
    """End a job with what is wrong, unless it was cancelled meanwhile."""
    with parts.database.write() as tx:
        transitions.failed(
            tx, job.n, code=hopeless.code, message=hopeless.message, param=hopeless.param
        )


def wind_up(parts: Parts, job: Job) -> None:
    """Erase what is left of a job that ended, its key first; from then on it is in nobody's way."""
    scratch.erase_all_of(parts.scratch, job.internal_id)
    parts.states.erase(job)
    with parts.database.write() as tx:
        transitions.finished(tx, job.n)


def active_file(parts: Parts, n: int, param: str) -> File:
    """Return a file that a job reads. Raises Hopeless if it was deleted (a restored database)."""
    file = files.of_number(parts.database, n)
    if file is None:
        raise outcomes.file_gone(param)
    return file


def _is_base(directory: Path) -> bool:
    return (directory / "config.json").is_file()

"""Runs one job's trainers: from its start to its end, a pause, or the server's shutdown.

A trainer's offers are durable before they are acknowledged. After any crash the job continues from the
last saved state.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from threading import Event

from tunewarden.artifacts.blobs import BlobErased
from tunewarden.artifacts.keyring import KeyErased
from tunewarden.engines import scratch
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import endings, handover, jobs, states, transitions
from tunewarden.finetuning.context import TrainingContext
from tunewarden.finetuning.endings import Cancelled, JobFailed, JobPaused, Stopped, TrainerDied
from tunewarden.finetuning.jobs import Job
from tunewarden.finetuning.trainer_process import Data, TrainerEnded, TrainerProcess
from tunewarden.locks import ByteLocks
from tunewarden.registry import artifacts, bases, file_rows, models
from tunewarden.registry.bases import BaseKind
from tunewarden.registry.file_rows import File
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
    TrainerMessage,
)

POLL_SECONDS = 0.1
# Timeouts for a trainer to save its state: on a pause, and on shutdown.
PAUSE_SECONDS = 60.0
STOP_SECONDS = 8.0
EXIT_SECONDS = 2.0
# A trainer silent for this long is considered hung.
SILENCE_SECONDS = 3600.0
# Attempts without progress before the job fails.
DEATHS_MAX = 3
RETRY_SECONDS = 1.0
# Metrics are recorded each second at first, and less often in long jobs: some thousands in total.
REPORT_SECONDS = 1.0
REPORTS_MAX = 1000

logger = logging.getLogger(__name__)


class Training:
    """One running job; the caller holds `locks`, the job's byte of the lock file."""

    def __init__(self, context: TrainingContext, job: Job, locks: ByteLocks, stop: Event) -> None:
        self._context = context
        self._job = job
        self._locks = locks
        self._stop = stop
        self._began = context.clock.monotonic()
        self._reported_at = self._began - REPORT_SECONDS
        self._extra_reports = 0
        self._has_progressed = False
        self._asked_at: float | None = None
        self._stopping_at: float | None = None

    def run(self) -> None:
        """Run until the job has ended or is paused, or the server shuts down. Raises Error."""
        deaths = 0
        while True:
            self._has_progressed = False
            try:
                self._attempt()
                break
            except Stopped:
                return
            except JobPaused:
                if self._is_paused():
                    return
                continue  # resumed in the meantime
            except Cancelled:
                break
            except JobFailed as failed:
                fail(self._context, self._job, failed)
                break
            except (TrainerDied, Error) as failure:
                if isinstance(failure, Error) and failure.kind is Kind.STORAGE_FULL:
                    # Not the job's failure: it continues from its last state when there is space.
                    self._wait_for_room()
                    continue
                if isinstance(failure, Error) and failure.kind is Kind.QUOTA_EXCEEDED:
                    fail(self._context, self._job, endings.given_up(failure, 1))
                    break
                deaths = 1 if self._has_progressed else deaths + 1
                if deaths >= DEATHS_MAX:
                    fail(self._context, self._job, endings.given_up(failure, deaths))
                    break
                logger.warning("job %s is retried: %s", self._job.id, failure)
            if self._stop.wait(RETRY_SECONDS):
                return
        wind_up(self._context, self._job)

    def _wait_for_room(self) -> None:
        """Wait for disk space, a cancellation, or shutdown."""
        logger.warning("job %s waits: the disk is below its floor", self._job.id)
        while not self._stop.wait(RETRY_SECONDS):
            if (
                transitions.state_now(self._context.database, self._job.n)
                is not states.State.RUNNING
            ):
                return
            with suppress(Error):
                self._context.database.check_room()
                return

    def _attempt(self) -> None:
        """Run a trainer from the last state to the end of the job. Raises any other ending."""
        with self._context.database.read() as tx:
            self._job = jobs.by_n(tx, self._job.n)
        self._asked_at = None
        self._look(None)
        self._context.database.check_room()
        scratch.erase_all_of(self._context.scratch, [self._job.internal_id])
        directory = scratch.new_directory(self._context.scratch, self._job.internal_id)
        try:
            trainer = self._start(directory)
            try:
                self._follow(trainer, directory)
            except TrainerEnded as ended:
                raise self._died(trainer, ended) from ended
            finally:
                trainer.end()
        except OSError as error:
            raise endings.no_room() from error
        finally:
            scratch.erase(directory)

    def _died(self, trainer: TrainerProcess, ended: TrainerEnded) -> TrainerDied:
        status = trainer.end(patience_seconds=EXIT_SECONDS)
        logger.warning(
            "the trainer of job %s ended (%s) with status %d: %s",
            self._job.id,
            ended,
            status,
            trainer.last_words,
        )
        self._look(None)  # It may have ended because the server shuts down.
        return TrainerDied(status)

    def _start(self, directory: Path) -> TrainerProcess:
        """Start a trainer with its inputs. Raises JobFailed if one is gone; OSError, Error."""
        job, context = self._job, self._context
        base = bases.find(context.database, job.base)
        if base is None or base.kind is not BaseKind.LOCAL or not _is_base(Path(base.location)):
            raise endings.base_gone(job.base)
        data = self._data()
        for name in ("work", "start", "resume"):
            (directory / name).mkdir(mode=0o700)
        start = self._unseal_start(directory / "start")
        step = context.states.unseal(job, directory / "resume")
        if job.state_blobs:
            with context.database.write() as tx:
                transitions.resumed(tx, job, step)
        # Leave one core to the server: torch's threads spin while a core is taken.
        processors = len(os.sched_getaffinity(0)) - 1
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
            rank=context.rank,
            threads=context.threads or max(1, processors // max(1, context.jobs_max)),
            state_seconds=context.state_seconds,
        )
        return TrainerProcess(task, data, keeps_open=self._locks.fileno())

    def _data(self) -> Data:
        job, context = self._job, self._context
        training = active_file(context, job.training_n, "training_file")
        validation = None
        if job.validation_n is not None:
            file = active_file(context, job.validation_n, "validation_file")
            validation = context.files.content(file)
        return Data(context.files.content(training), validation)

    def _unseal_start(self, directory: Path) -> bool:
        """Decrypt the job's start model, if any."""
        if self._job.start_n is None:
            return False
        model = models.by_n(self._context.database, self._job.start_n)
        if not artifacts.is_active(self._context.database, model.n):
            raise endings.model_gone(model.id)
        try:
            self._context.imports.unseal(model, directory)
        except (KeyErased, BlobErased) as error:
            raise endings.model_gone(model.id) from error
        return True

    def _follow(self, trainer: TrainerProcess, directory: Path) -> None:
        """Process the trainer's messages until the job has succeeded."""
        heard_at = self._context.clock.monotonic()
        while True:
            message = trainer.receive(POLL_SECONDS)
            self._look(trainer)
            now = self._context.clock.monotonic()
            if message is not None:
                heard_at = now
                if self._handled(message, trainer, directory):
                    return
            elif now - heard_at > SILENCE_SECONDS:
                raise TrainerEnded("silent for too long")

    def _handled(self, message: TrainerMessage, trainer: TrainerProcess, directory: Path) -> bool:
        """Process one message; return whether it was the last one."""
        job, context, work = self._job, self._context, directory / "work"
        match message:
            case Tokens():
                with context.database.write() as tx:
                    transitions.counted(tx, job, message)
            case Plan():
                with context.database.write() as tx:
                    transitions.planned(tx, job, message)
            case Progress():
                self._tell(message)
            case Checkpoint():
                handover.take_checkpoint(context, job, message, work)
                trainer.acknowledge()
            case State():
                handover.take_state(context, job, message, work)
                self._has_progressed = True
                trainer.acknowledge()
            case Finished():

                def end_trainer() -> None:
                    trainer.end()
                    scratch.erase(directory)

                handover.finish(context, job, message, work, end_trainer)
                return True
            case Paused():
                trainer.end(patience_seconds=EXIT_SECONDS)
                self._look(None)
                raise JobPaused
            case Failed():
                raise JobFailed(message.code, message.message, message.param)
        return False

    def _look(self, trainer: TrainerProcess | None) -> None:
        """Apply a pending pause, cancellation or shutdown. Raises its ending, at once without a trainer."""
        state = transitions.state_now(self._context.database, self._job.n)
        if state.has_ended:
            raise Cancelled
        is_stopping = self._stop.is_set()
        if not is_stopping and state is not states.State.PAUSING:
            return
        outcome = JobPaused if state is states.State.PAUSING else Stopped
        if trainer is None:
            raise outcome
        now = self._context.clock.monotonic()
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
        """Record metrics, rate-limited."""
        now = self._context.clock.monotonic()
        pause = max(REPORT_SECONDS, (now - self._began) / REPORTS_MAX)
        if now - self._reported_at < pause:
            is_end = progress.step == progress.steps or float(progress.epoch).is_integer()
            if not is_end or self._extra_reports >= REPORTS_MAX:
                return
            self._extra_reports += 1
        self._reported_at = now
        try:
            with self._context.database.write() as tx:
                transitions.progressed(tx, self._job, progress)
        except Error as error:  # no reason to restart the job
            if error.kind is Kind.STORAGE_FULL:
                return
            logger.warning("metrics of job %s were not written: %s", self._job.id, error.message)

    def _is_paused(self) -> bool:
        with self._context.database.write(below_floor=True) as tx:
            return transitions.paused(tx, self._job.n)


def fail(context: TrainingContext, job: Job, failed: JobFailed) -> None:
    """Fail a job, unless it was cancelled in the meantime."""
    with context.database.write(below_floor=True) as tx:
        transitions.failed(tx, job.n, code=failed.code, message=failed.message, param=failed.param)


def wind_up(context: TrainingContext, job: Job) -> None:
    """Clean up an ended job: erase its saved state, key first; then it blocks no deletion."""
    scratch.erase_all_of(context.scratch, [job.internal_id])
    context.states.erase(job)
    with context.database.write(below_floor=True) as tx:
        transitions.finished(tx, job.n)


def active_file(context: TrainingContext, n: int, param: str) -> File:
    """Return an input file of a job. Raises JobFailed if it was deleted (a restored database)."""
    file = file_rows.of_number(context.database, n)
    if file is None:
        raise endings.file_gone(param)
    return file


def _is_base(directory: Path) -> bool:
    return (directory / "config.json").is_file()

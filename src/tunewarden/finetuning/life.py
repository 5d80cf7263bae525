"""What a caller does to a job while it lives: cancel, pause, resume. The runner does what is wished."""

from collections.abc import Callable

from tunewarden import audit
from tunewarden.audit import EventType
from tunewarden.clock import Clock
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import events, jobs
from tunewarden.finetuning.jobs import ENDED, Job, NamedJob, Status, Wish
from tunewarden.identity.policy import Action, Caller, authorize

# How long a cancel or a pause is waited for before it is answered; it goes on all the same.
SETTLE_SECONDS = 5.0
POLL_SECONDS = 0.02


def cancel(database: Database, clock: Clock, caller: Caller, job_id: str) -> NamedJob:
    """Cancel a job; return it when its trainer is gone, or after SETTLE_SECONDS all the same.

    One that was cancelled before is returned as it is, so that a retry gets its answer. Raises
    Error(FORBIDDEN, NOT_FOUND), Error(INVALID) for a job that succeeded or failed.
    """
    authorize(caller, Action.WRITE_JOBS)
    with database.write() as tx:
        job = jobs.own(tx, caller, job_id)
        if job.status is not Status.CANCELLED:
            _check_unended(job)
            tx.run(
                "UPDATE jobs SET status = 'cancelled', wish = 'cancel', is_paused = 0,"
                " estimated_finish_at = NULL WHERE n = :n",
                n=job.n,
            )
            _note(tx, caller, job, EventType.JOB_CANCELLED, "Fine-tuning job cancelled")
    _wait(clock, lambda: jobs.named(database, caller, job_id).job.finished_at is not None)
    return jobs.named(database, caller, job_id)


def pause(database: Database, clock: Clock, caller: Caller, job_id: str) -> NamedJob:
    """Pause a job: one that runs saves its state first, one that waits keeps waiting.

    Returns when it is paused, or after SETTLE_SECONDS all the same; one that is paused is returned as
    it is. Raises Error(FORBIDDEN, NOT_FOUND), Error(INVALID) for a job that has ended.
    """
    authorize(caller, Action.WRITE_JOBS)
    with database.write() as tx:
        job = jobs.own(tx, caller, job_id)
        _check_unended(job)
        if not job.is_paused and job.wish is None:
            if job.status is Status.RUNNING:
                tx.run("UPDATE jobs SET wish = 'pause' WHERE n = :n", n=job.n)
            else:
                tx.run("UPDATE jobs SET is_paused = 1 WHERE n = :n", n=job.n)
            _note(tx, caller, job, EventType.JOB_PAUSED, "Fine-tuning job is being paused")
    _wait(clock, lambda: jobs.named(database, caller, job_id).job.wish is not Wish.PAUSE)
    return jobs.named(database, caller, job_id)


def resume(database: Database, caller: Caller, job_id: str) -> NamedJob:
    """Let a paused job go on from its saved state when its turn comes.

    Raises Error(FORBIDDEN, NOT_FOUND), Error(INVALID) for a job that is not paused or has ended, and
    Error(CONFLICT) while it is still saving its state.
    """
    authorize(caller, Action.WRITE_JOBS)
    with database.write() as tx:
        job = jobs.own(tx, caller, job_id)
        _check_unended(job)
        if job.wish is Wish.PAUSE:
            raise Error(
                Kind.CONFLICT,
                f"Job is still saving its state to be paused: {job.id}. Resume it in a moment.",
                param="fine_tuning_job_id",
                code="job_is_pausing",
                retry_after_seconds=1,
            )
        if not job.is_paused:
            raise Error(
                Kind.INVALID,
                f"Job is not paused: {job.id}",
                param="fine_tuning_job_id",
                code="job_not_paused",
            )
        tx.run("UPDATE jobs SET is_paused = 0 WHERE n = :n", n=job.n)
        _note(tx, caller, job, EventType.JOB_RESUMED, "Fine-tuning job resumed")
    return jobs.named(database, caller, job_id)


def _check_unended(job: Job) -> None:
    if job.status in ENDED:
        how = "been cancelled" if job.status is Status.CANCELLED else "completed"
        raise Error(
            Kind.INVALID,
            f"Job has already {how}: {job.id}",
            param="fine_tuning_job_id",
            code="job_already_ended",
        )


def _note(tx: Tx, caller: Caller, job: Job, event: EventType, message: str) -> None:
    """Write what a caller did to a job, for the audit and for who follows the job's events."""
    events.record(tx, job.n, message)
    audit.record(
        tx,
        event,
        organization_id=job.organization_id,
        actor=caller.actor,
        resource_id=job.id,
    )


def _wait(clock: Clock, is_settled: Callable[[], bool]) -> None:
    deadline = clock.monotonic() + SETTLE_SECONDS
    while not is_settled() and clock.monotonic() < deadline:
        clock.sleep(POLL_SECONDS)

"""Commands on a job: cancel, pause, resume. They record the wish; the runner carries it out."""

from collections.abc import Callable, Iterable

from tunewarden import audit
from tunewarden.audit import Actor, EventType
from tunewarden.clock import Clock
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import events, jobs, states, transitions
from tunewarden.finetuning.jobs import Job, NamedJob
from tunewarden.finetuning.states import State, Status
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize

# How long cancel and pause wait for the runner before they return; the runner continues.
SETTLE_SECONDS = 5.0
POLL_SECONDS = 0.02


def cancel(database: Database, clock: Clock, caller: Caller, job_id: str) -> NamedJob:
    """Cancel a job; return it when its trainer has ended, or after SETTLE_SECONDS.

    Idempotent: a job cancelled before is returned as it is. Raises
    Error(FORBIDDEN, NOT_FOUND), Error(INVALID) for a job that succeeded or failed.
    """
    authorize(caller, Action.WRITE_JOBS)
    with database.write(below_floor=True) as tx:
        keys.authorize_now(tx, caller, Action.WRITE_JOBS)
        job = jobs.own(tx, caller, job_id)
        if job.status is not Status.CANCELLED:
            _check_unended(job)
            transitions.cancelled(tx, job)
            _note(tx, caller.actor, job, EventType.JOB_CANCELLED, "Fine-tuning job cancelled")
    _wait(clock, lambda: jobs.named(database, caller, job_id).job.finished_at is not None)
    return jobs.named(database, caller, job_id)


def cancel_what_needs(tx: Tx, actor: Actor, artifact_numbers: Iterable[int]) -> None:
    """Cancel each unfinished job that needs one of these artifacts, in the transaction that deletes them (D3)."""
    for n in artifact_numbers:
        for job in jobs.unfinished_that_need(tx, n):
            if job.status is not Status.CANCELLED:
                transitions.cancelled(tx, job)
                _note(
                    tx,
                    actor,
                    job,
                    EventType.JOB_CANCELLED,
                    "Fine-tuning job cancelled: what it needs is being deleted",
                )


def pause(database: Database, clock: Clock, caller: Caller, job_id: str) -> NamedJob:
    """Pause a job: a running one saves its state first, a queued one stays queued.

    Returns when it is paused, or after SETTLE_SECONDS. Idempotent: a paused job is returned as
    it is. Raises Error(FORBIDDEN, NOT_FOUND), Error(INVALID) for a job that has ended.
    """
    authorize(caller, Action.WRITE_JOBS)
    with database.write() as tx:
        keys.authorize_now(tx, caller, Action.WRITE_JOBS)
        job = jobs.own(tx, caller, job_id)
        _check_unended(job)
        if job.state not in states.PAUSED:
            transitions.pausing(tx, job)
            _note(tx, caller.actor, job, EventType.JOB_PAUSED, "Fine-tuning job is being paused")
    _wait(clock, lambda: jobs.named(database, caller, job_id).job.state is not State.PAUSING)
    return jobs.named(database, caller, job_id)


def resume(database: Database, caller: Caller, job_id: str) -> NamedJob:
    """Resume a paused job: it is queued, and continues from its saved state.

    Raises Error(FORBIDDEN, NOT_FOUND), Error(INVALID) for a job that is not paused or has ended, and
    Error(CONFLICT) while it is still saving its state.
    """
    authorize(caller, Action.WRITE_JOBS)
    with database.write() as tx:
        keys.authorize_now(tx, caller, Action.WRITE_JOBS)
        job = jobs.own(tx, caller, job_id)
        _check_unended(job)
        if job.state is State.PAUSING:
            raise Error(
                Kind.CONFLICT,
                f"Job is still saving its state to be paused: {job.id}. Resume it in a moment.",
                param="fine_tuning_job_id",
                code="job_is_pausing",
                retry_after_seconds=1,
            )
        if not transitions.unpaused(tx, job):
            raise Error(
                Kind.INVALID,
                f"Job is not paused: {job.id}",
                param="fine_tuning_job_id",
                code="job_not_paused",
            )
        _note(tx, caller.actor, job, EventType.JOB_RESUMED, "Fine-tuning job resumed")
    return jobs.named(database, caller, job_id)


def _check_unended(job: Job) -> None:
    if job.state.has_ended:
        how = "been cancelled" if job.status is Status.CANCELLED else "completed"
        raise Error(
            Kind.INVALID,
            f"Job has already {how}: {job.id}",
            param="fine_tuning_job_id",
            code="job_already_ended",
        )


def _note(tx: Tx, actor: Actor, job: Job, event: EventType, message: str) -> None:
    """Record a command in the audit log and the job's events."""
    events.record(tx, job.n, message)
    audit.record(
        tx,
        event,
        organization_id=job.organization_id,
        actor=actor,
        resource_id=job.id,
    )


def _wait(clock: Clock, is_settled: Callable[[], bool]) -> None:
    deadline = clock.monotonic() + SETTLE_SECONDS
    while not is_settled() and clock.monotonic() < deadline:
        clock.sleep(POLL_SECONDS)

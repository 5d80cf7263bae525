"""State transitions of job rows, with their job events. Each runs in the caller's transaction.

States and events are those of `states.py`: a cancelled job stays cancelled, and functions that
return a bool return whether the transition was possible.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden import audit
from tunewarden.db.database import Database, Tx
from tunewarden.finetuning import checkpoints, events, states
from tunewarden.finetuning.hyperparameters import Method, Values
from tunewarden.finetuning.jobs import Job
from tunewarden.finetuning.states import TRANSITIONS, Event, State
from tunewarden.identity.policy import Caller
from tunewarden.trainer.messages import Plan, Progress, Tokens
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType

LINES_NAMED = 20


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job that needs the runner."""

    n: int
    organization_id: str
    project_id: str
    state: State


def unfinished(tx: Tx) -> list[Unfinished]:
    """Return every unfinished job, oldest first."""
    return [
        Unfinished(n, owner, project, states.stored(*stored))
        for n, owner, project, *stored in tx.rows(
            f"SELECT n, organization_id, project_id, {states.COLUMNS} FROM jobs"
            " WHERE finished_at IS NULL ORDER BY n"
        )
    ]


def state_now(database: Database, job_n: int) -> State:
    """Return the state of a job, by one read outside any transaction."""
    row = database.peek(f"SELECT {states.COLUMNS} FROM jobs WHERE n = :n", n=job_n)
    assert row is not None, "a job's row is never removed"
    return states.stored(*row)


def state_of(tx: Tx, job_n: int) -> State:
    """Return the state of a job, within the caller's transaction."""
    row = tx.row(f"SELECT {states.COLUMNS} FROM jobs WHERE n = :n", n=job_n)
    assert row is not None, "a job's row is never removed"
    return states.stored(*row)


def is_running(tx: Tx, job_n: int) -> bool:
    """Return whether a job is running, in the caller's transaction."""
    return state_of(tx, job_n) in states.TRAINING


def created(
    tx: Tx,
    caller: Caller,
    *,
    job_id: str,
    internal_id: str,
    model: str,
    base: str,
    start_n: int | None,
    training_n: int,
    validation_n: int | None,
    method: Method,
    hyperparameters: Values,
    suffix: str,
    seed: int,
    sealed_metadata: bytes | None,
    idempotency_sha256: bytes | None,
) -> int:
    """Insert a job of the caller, in `validating_files`; return its number."""
    tx.run(
        "INSERT INTO jobs (id, internal_id, organization_id, project_id, status, model, base,"
        " start_n, training_n, validation_n, method, hyperparameters, suffix, seed, sealed_metadata,"
        " idempotency_sha256, created_by, created_at) VALUES (:id, :internal_id, :organization, :project,"
        " 'validating_files', :model, :base, :start, :training, :validation, :method,"
        " :hyperparameters, :suffix, :seed, :metadata,"
        " :idempotency, :by, :now)",
        id=job_id,
        internal_id=internal_id,
        organization=caller.organization_id,
        project=caller.project_id,
        model=model,
        base=base,
        start=start_n,
        training=training_n,
        validation=validation_n,
        method=method.value,
        hyperparameters=json.dumps(hyperparameters),
        suffix=suffix,
        seed=seed,
        metadata=sealed_metadata,
        idempotency=idempotency_sha256,
        by=caller.key_id,
        now=tx.now_micros,
    )
    row = tx.row("SELECT n FROM jobs WHERE id = :id", id=job_id)
    assert row is not None, "the row was written in this transaction"
    return int(row[0])


def validated(tx: Tx, job: Job) -> bool:
    """Queue the job: its files are valid."""
    is_ours = _moved(tx, job.n, Event.VALIDATED)
    if is_ours:
        events.record(tx, job.n, "Files validated, moving job to queued state")
    return is_ours


def started(tx: Tx, job: Job) -> bool:
    """Set the job to running. A job that is running already is adopted."""
    started_at = tx.now_micros if job.started_at is None else job.started_at
    is_ours = _moved(tx, job.n, Event.STARTED, started_at=started_at)
    if is_ours and job.started_at is None:
        events.record(tx, job.n, "Fine-tuning job started")
    return is_ours


def cancelled(tx: Tx, job: Job) -> bool:
    """Cancel the job; the runner then stops the trainer and erases the saved state."""
    is_ours = _moved(tx, job.n, Event.CANCEL, estimated_finish_at=None)
    if is_ours:
        outbox.publish(tx, job.organization_id, WebhookEventType.JOB_CANCELLED, job.id)
    return is_ours


def pausing(tx: Tx, job: Job) -> bool:
    """Pause the job; a running one saves its state first."""
    return _moved(tx, job.n, Event.PAUSE)


def unpaused(tx: Tx, job: Job) -> bool:
    """Queue a paused job again."""
    return _moved(tx, job.n, Event.RESUME)


def resumed(tx: Tx, job: Job, step: int | None) -> None:
    """Record that the job continues from a saved state."""
    where = "from the beginning" if step is None else f"from its state at step {step}"
    events.record(tx, job.n, f"Fine-tuning job goes on {where}")


def counted(tx: Tx, job: Job, tokens: Tokens) -> None:
    """Record which examples were too long for the base; only once."""
    if not tokens.truncated:
        return
    lines = ", ".join(str(line) for line in tokens.truncated_lines[:LINES_NAMED])
    more = " and others" if tokens.truncated > len(tokens.truncated_lines[:LINES_NAMED]) else ""
    examples = "1 example" if tokens.truncated == 1 else f"{tokens.truncated} examples"
    message = (
        f"{examples} of the {tokens.file} file exceed the context length of the base and were"
        f" truncated: line {lines}{more}. Shorten them to train on all of their text."
    )
    if not events.has(tx, job.n, message):
        events.record(tx, job.n, message, level="warn")


def planned(tx: Tx, job: Job, plan: Plan) -> None:
    """Store the resolved hyperparameters."""
    resolved: dict[str, Any] = {
        "n_epochs": plan.n_epochs,
        "batch_size": plan.batch_size,
        "learning_rate_multiplier": plan.learning_rate_multiplier,
    }
    if plan.beta is not None:
        resolved["beta"] = plan.beta
    tx.run(
        "UPDATE jobs SET hyperparameters = :resolved WHERE n = :n",
        n=job.n,
        resolved=json.dumps(resolved),
    )


def progressed(tx: Tx, job: Job, progress: Progress) -> None:
    """Record progress and the estimated finish."""
    tx.run(
        "UPDATE jobs SET estimated_finish_at = :at WHERE n = :n AND status = 'running'",
        n=job.n,
        at=tx.now_micros + int(progress.seconds_left * 1_000_000),
    )
    data = {
        "step": progress.step,
        "total_steps": progress.steps,
        "epoch": progress.epoch,
        "train_loss": progress.train_loss,
        "train_mean_token_accuracy": progress.train_mean_token_accuracy,
        "valid_loss": progress.valid_loss,
        "valid_mean_token_accuracy": progress.valid_mean_token_accuracy,
        "learning_rate": progress.learning_rate,
    }
    message = f"Step {progress.step}/{progress.steps}: training loss={progress.train_loss:.2f}"
    if progress.valid_loss is not None:
        message += f", validation loss={progress.valid_loss:.2f}"
    given = {name: value for name, value in data.items() if value is not None}
    events.record(tx, job.n, message, data=given)


def checkpoint_made(
    tx: Tx, job: Job, model_n: int, *, step: int, metrics: dict[str, float]
) -> None:
    """Insert a checkpoint for a model registered in the same transaction."""
    checkpoints.insert(tx, job.n, model_n, step=step, metrics=metrics)
    events.record(tx, job.n, f"Checkpoint created at step {step}")


def switch_state(tx: Tx, job_n: int, parts: Sequence[dict[str, Any]]) -> None:
    """Set the blobs of the job's resume state, replacing the previous ones."""
    tx.run(
        "UPDATE jobs SET state_blobs = :parts WHERE n = :n", n=job_n, parts=json.dumps(list(parts))
    )


def paused(tx: Tx, job_n: int) -> bool:
    """Set the job to paused: its trainer has ended."""
    is_ours = _moved(tx, job_n, Event.PAUSED, estimated_finish_at=None)
    if is_ours:
        events.record(tx, job_n, "Fine-tuning job paused")
    return is_ours


def succeeded(
    tx: Tx, job: Job, *, model_n: int, model_id: str, result_n: int, trained_tokens: int
) -> bool:
    """Complete the job with its results, registered in the same transaction."""
    is_ours = _moved(
        tx,
        job.n,
        Event.SUCCEEDED,
        model_n=model_n,
        result_n=result_n,
        trained_tokens=trained_tokens,
        estimated_finish_at=None,
    )
    if is_ours:
        events.record(tx, job.n, f"New fine-tuned model created: {model_id}")
        outbox.publish(tx, job.organization_id, WebhookEventType.JOB_SUCCEEDED, job.id)
    return is_ours


def failed(tx: Tx, job_n: int, *, code: str, message: str, param: str | None) -> bool:
    """Fail the job with an error."""
    error = json.dumps({"code": code, "message": message, "param": param})
    is_ours = _moved(tx, job_n, Event.FAILED, error=error, estimated_finish_at=None)
    if is_ours:
        events.record(tx, job_n, f"The job failed: {message}", level="error")
        _record_failure(tx, job_n, code)
    return is_ours


def _record_failure(tx: Tx, job_n: int, code: str) -> None:
    row = tx.row("SELECT organization_id, id FROM jobs WHERE n = :n", n=job_n)
    assert row is not None, "jobs are kept for ever"
    audit.record(
        tx,
        audit.EventType.JOB_FAILED,
        organization_id=row[0],
        actor=audit.SERVER,
        resource_id=row[1],
        code=code,
    )
    outbox.publish(tx, row[0], WebhookEventType.JOB_FAILED, row[1])


def finished(tx: Tx, job_n: int) -> bool:
    """Note that an ended job is cleaned up: it blocks no deletion from now on.

    False while its saved state exists.
    """
    if tx.row(
        "SELECT 1 FROM drafts d JOIN jobs j ON j.internal_id = d.internal_id WHERE j.n = :n",
        n=job_n,
    ):
        return False
    is_ours = _moved(tx, job_n, Event.FINISHED, state_blobs=None)
    if is_ours and state_of(tx, job_n) is State.SUCCEEDED:
        events.record(tx, job_n, "The job has successfully completed")
    return is_ours


def last_starts(tx: Tx) -> dict[tuple[str, str], int]:
    """Return when each project's last job was first started, in microseconds.

    The keys are (organization, project).
    """
    return {
        (str(organization), str(project)): int(at)
        for organization, project, at in tx.rows(
            # One index look-up per project: jobs are kept for ever.
            "SELECT p.organization_id, p.id, (SELECT MAX(j.started_at) FROM jobs j WHERE j.project_id = p.id"
            " AND j.started_at IS NOT NULL) FROM projects p"
        )
        if at is not None
    }


def _moved(tx: Tx, job_n: int, event: Event, **columns: Any) -> bool:
    """Apply an event to a job, and write these columns with it.

    False, with nothing written, if the state has no such event: for example, the job was cancelled in the meantime.
    """
    after = TRANSITIONS.get((state_of(tx, job_n), event))
    if after is None:
        return False
    columns |= states.written(after, tx.now_micros)
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    tx.run(f"UPDATE jobs SET {assignments} WHERE n = :n", n=job_n, **columns)
    return True

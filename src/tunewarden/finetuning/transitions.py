"""What happens to a job's row, and what its events say of it. Each is called within a transaction.

Every change names the status that it starts from, so that a job which was cancelled meanwhile stays
cancelled: those that return a bool say whether the job was still where the caller thought.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden.db.database import Database, Tx
from tunewarden.finetuning import events
from tunewarden.finetuning.jobs import Job, Status, Wish
from tunewarden.ids import Prefix, mint
from tunewarden.trainer.messages import Plan, Progress, Tokens

LINES_NAMED = 20


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job that a runner has something to do for."""

    n: int
    project_id: str
    status: Status
    is_paused: bool
    wish: Wish | None


def unfinished(tx: Tx) -> list[Unfinished]:
    """Return every job that runs, waits, or is being wound up; oldest first."""
    return [
        Unfinished(n, project_id, Status(status), bool(is_paused), Wish(wish) if wish else None)
        for n, project_id, status, is_paused, wish in tx.rows(
            "SELECT n, project_id, status, is_paused, wish FROM jobs WHERE finished_at IS NULL"
            " ORDER BY n"
        )
    ]


def wish_of(database: Database, job_n: int) -> tuple[Status, Wish | None]:
    """Return where a job is now, and what is wished of its runner."""
    row = database.peek("SELECT status, wish FROM jobs WHERE n = :n", n=job_n)
    assert row is not None, "a job's row is never removed"
    return Status(row[0]), Wish(row[1]) if row[1] else None


def is_running(tx: Tx, job_n: int) -> bool:
    """Tell whether a job was neither ended nor cancelled, within the caller's transaction."""
    row = tx.row("SELECT 1 FROM jobs WHERE n = :n AND status = 'running'", n=job_n)
    return row is not None


def validated(tx: Tx, job: Job) -> bool:
    """Let the job wait for its turn: its files can be trained on."""
    is_ours = _moved(tx, job.n, Status.VALIDATING_FILES, Status.QUEUED)
    if is_ours:
        events.record(tx, job.n, "Files validated, moving job to queued state")
    return is_ours


def started(tx: Tx, job: Job) -> bool:
    """Let the job run: its turn has come. A job that runs already is adopted."""
    done = tx.run(
        "UPDATE jobs SET status = 'running', started_at = COALESCE(started_at, :now) WHERE n = :n"
        " AND finished_at IS NULL AND wish IS NULL AND (status = 'running' OR (status = 'queued'"
        " AND is_paused = 0))",
        n=job.n,
        now=tx.now_micros,
    )
    if done and job.started_at is None:
        events.record(tx, job.n, "Fine-tuning job started")
    return bool(done)


def resumed(tx: Tx, job: Job, step: int | None) -> None:
    """Tell that the job goes on where an earlier trainer left it."""
    where = "from the beginning" if step is None else f"from its state at step {step}"
    events.record(tx, job.n, f"Fine-tuning job goes on {where}")


def counted(tx: Tx, job: Job, tokens: Tokens) -> None:
    """Tell which examples were too long for the base; once, however often they are counted."""
    if not tokens.truncated:
        return
    lines = ", ".join(str(line) for line in tokens.truncated_lines[:LINES_NAMED])
    more = " and others" if tokens.truncated > len(tokens.truncated_lines[:LINES_NAMED]) else ""
    examples = "1 example" if tokens.truncated == 1 else f"{tokens.truncated} examples"
    message = (
        f"{examples} of the {tokens.file} file exceed the context length of the base and were"
        f" truncated: line {lines}{more}. Shorten them to train on all of their text."
    )
    if not tx.row(
        "SELECT 1 FROM job_events WHERE job_n = :n AND message = :message", n=job.n, message=message
    ):
        events.record(tx, job.n, message, level="warn")


def planned(tx: Tx, job: Job, plan: Plan) -> None:
    """Write the hyperparameters that are trained with."""
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
    """Tell how far the job is, and when it may be done."""
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
    """Write a checkpoint for a model that was registered in the same transaction."""
    tx.run(
        "INSERT INTO job_checkpoints (id, job_n, model_n, step, metrics, created_at)"
        " VALUES (:id, :job, :model, :step, :metrics, :now)",
        id=mint(Prefix.CHECKPOINT),
        job=job.n,
        model=model_n,
        step=step,
        metrics=json.dumps(metrics, allow_nan=False),
        now=tx.now_micros,
    )
    events.record(tx, job.n, f"Checkpoint created at step {step}")


def switch_state(tx: Tx, job_n: int, parts: Sequence[dict[str, Any]]) -> None:
    """Name the sealed files that the job goes on from, in place of those before."""
    tx.run(
        "UPDATE jobs SET state_blobs = :parts WHERE n = :n", n=job_n, parts=json.dumps(list(parts))
    )


def paused(tx: Tx, job_n: int) -> bool:
    """Let the job wait until it is resumed: its trainer is gone."""
    done = tx.run(
        "UPDATE jobs SET status = 'queued', is_paused = 1, wish = NULL, estimated_finish_at = NULL"
        " WHERE n = :n AND status = 'running' AND wish = 'pause'",
        n=job_n,
    )
    if done:
        events.record(tx, job_n, "Fine-tuning job paused")
    return bool(done)


def succeeded(
    tx: Tx, job: Job, *, model_n: int, model_id: str, result_n: int, trained_tokens: int
) -> bool:
    """End the job with what it made, which was registered in the same transaction."""
    done = tx.run(
        "UPDATE jobs SET status = 'succeeded', model_n = :model, result_n = :result, wish = NULL,"
        " trained_tokens = :tokens, estimated_finish_at = NULL WHERE n = :n AND status = 'running'",
        n=job.n,
        model=model_n,
        result=result_n,
        tokens=trained_tokens,
    )
    if done:
        events.record(tx, job.n, f"New fine-tuned model created: {model_id}")
    return bool(done)


def failed(tx: Tx, job_n: int, *, code: str, message: str, param: str | None) -> bool:
    """End the job with what is wrong and what to do about it."""
    done = tx.run(
        "UPDATE jobs SET status = 'failed', error = :error, wish = NULL, estimated_finish_at = NULL"
        " WHERE n = :n AND status IN ('validating_files', 'queued', 'running')",
        n=job_n,
        error=json.dumps({"code": code, "message": message, "param": param}),
    )
    if done:
        events.record(tx, job_n, f"The job failed: {message}", level="error")
    return bool(done)


def finished(tx: Tx, job_n: int) -> bool:
    """Note that nothing is left of a job that ended: it blocks nothing from now on.

    False while its saved state is there: that is erased first.
    """
    done = tx.run(
        "UPDATE jobs SET finished_at = :now, wish = NULL, state_blobs = NULL WHERE n = :n"
        " AND finished_at IS NULL AND status IN ('succeeded', 'failed', 'cancelled')"
        " AND NOT EXISTS (SELECT 1 FROM drafts d WHERE d.internal_id = jobs.internal_id)",
        n=job_n,
        now=tx.now_micros,
    )
    if done and tx.row("SELECT 1 FROM jobs WHERE n = :n AND status = 'succeeded'", n=job_n):
        events.record(tx, job_n, "The job has successfully completed")
    return bool(done)


def model_of(tx: Tx, job_n: int, step: int | None) -> int | None:
    """Return the number of the model that the job made at a step, or at its end, whatever became of it."""
    row = tx.row(
        "SELECT n FROM models WHERE job_n = :job AND COALESCE(step, 0) = :step",
        job=job_n,
        step=step or 0,
    )
    return int(row[0]) if row else None


def last_starts(tx: Tx) -> dict[str, int]:
    """Return when each project's last job was started for the first time, in microseconds."""
    return {
        str(project): int(at)
        for project, at in tx.rows(
            # One look into the index for each project: jobs are kept for ever.
            "SELECT p.id, (SELECT MAX(j.started_at) FROM jobs j WHERE j.project_id = p.id"
            " AND j.started_at IS NOT NULL) FROM projects p"
        )
        if at is not None
    }


def _moved(tx: Tx, n: int, before: Status, after: Status) -> bool:
    done = tx.run(
        "UPDATE jobs SET status = :after WHERE n = :n AND status = :before",
        n=n,
        before=before.value,
        after=after.value,
    )
    return bool(done)

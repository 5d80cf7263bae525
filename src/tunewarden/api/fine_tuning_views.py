"""Fine-tuning as JSON shows it, in OpenAI's fields; what is ours is added only where it is true."""

from typing import Any

from tunewarden.finetuning.checkpoints import Checkpoint
from tunewarden.finetuning.events import JobEvent
from tunewarden.finetuning.jobs import ENDED, NamedJob, Status, Wish
from tunewarden.finetuning.permissions import Permission


def job_object(named: NamedJob) -> dict[str, Any]:
    """Return a job as OpenAI's FineTuningJob, with `paused` and `fine_tuned_model_deleted` of ours."""
    job = named.job
    # For a client it ends when nothing of it is in the way of a deletion any more: some milliseconds.
    is_ending = job.finished_at is None and job.status in {Status.SUCCEEDED, Status.FAILED}
    status = Status.RUNNING if is_ending else job.status
    has_ended = status in ENDED
    plain = {name: value for name, value in job.hyperparameters.items() if name != "beta"}
    shown: dict[str, Any] = {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": _seconds(job.created_at),
        "finished_at": _seconds(job.finished_at),
        "status": status.value,
        "model": job.model,
        "fine_tuned_model": named.fine_tuned_model if has_ended else None,
        "organization_id": job.organization_id,
        "training_file": named.training_file,
        "validation_file": named.validation_file,
        "result_files": [named.result_file] if has_ended and named.result_file else [],
        "hyperparameters": plain,
        "method": {
            "type": job.method.value,
            job.method.value: {"hyperparameters": job.hyperparameters},
        },
        "seed": job.seed,
        "trained_tokens": job.trained_tokens if has_ended else None,
        "estimated_finish": None if has_ended else _seconds(job.estimated_finish_at),
        "error": job.error if status is Status.FAILED else None,
        "integrations": [],
        "metadata": job.metadata,
        "user_provided_suffix": job.suffix or None,
    }
    if job.is_paused or job.wish is Wish.PAUSE:
        shown["paused"] = True
    if named.model_is_deleted:
        shown["fine_tuned_model_deleted"] = True
    return shown


def event_object(event: JobEvent) -> dict[str, Any]:
    """Return an event as OpenAI's FineTuningJobEvent; one without metrics has no `data` at all."""
    shown = {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": _seconds(event.created_at),
        "level": event.level,
        "type": event.type,
        "message": event.message,
    }
    return shown if event.data is None else {**shown, "data": event.data}


def checkpoint_object(checkpoint: Checkpoint, job_id: str) -> dict[str, Any]:
    """Return a checkpoint as OpenAI's; one whose model was deleted says `deleted`."""
    shown = {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": _seconds(checkpoint.created_at),
        "fine_tuning_job_id": job_id,
        "fine_tuned_model_checkpoint": checkpoint.model_id,
        "step_number": checkpoint.step,
        "metrics": {name: value for name, value in checkpoint.metrics.items() if value is not None},
    }
    return {**shown, "deleted": True} if checkpoint.is_deleted else shown


def permission_object(permission: Permission) -> dict[str, Any]:
    """Return a permission as OpenAI's."""
    return {
        "id": permission.id,
        "object": "checkpoint.permission",
        "created_at": _seconds(permission.created_at),
        "project_id": permission.project_id,
    }


def listing(found: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return a page of OpenAI's: `found` holds one more than `limit` if there are more."""
    shown = found[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(found) > limit,
    }


def _seconds(micros: int | None) -> int | None:
    return None if micros is None else micros // 1_000_000

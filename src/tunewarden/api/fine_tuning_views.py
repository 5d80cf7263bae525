"""Fine-tuning objects in OpenAI's fields; our own fields are present only when true."""

from msgspec import UNSET

from tunewarden.api import schemas
from tunewarden.finetuning.checkpoints import Checkpoint
from tunewarden.finetuning.curves import Curves
from tunewarden.finetuning.events import JobEvent
from tunewarden.finetuning.jobs import NamedJob
from tunewarden.finetuning.permissions import Permission
from tunewarden.finetuning.states import ENDED, PAUSED, State, Status


def job_object(named: NamedJob) -> schemas.Job:
    """Return a job as OpenAI's FineTuningJob, with our fields `paused` and `fine_tuned_model_deleted`."""
    job = named.job
    # Clients see a job as finished only when it no longer blocks a deletion: some milliseconds later.
    is_ending = job.state in {State.SUCCEEDING, State.FAILING}
    status = Status.RUNNING if is_ending else job.status
    has_ended = status in ENDED
    plain = {name: value for name, value in job.hyperparameters.items() if name != "beta"}
    shown = schemas.Job(
        id=job.id,
        object="fine_tuning.job",
        created_at=job.created_at // 1_000_000,
        finished_at=_seconds(job.finished_at),
        status=status.value,
        model=job.model,
        fine_tuned_model=named.fine_tuned_model if has_ended else None,
        organization_id=job.organization_id,
        training_file=named.training_file,
        validation_file=named.validation_file,
        result_files=[named.result_file] if has_ended and named.result_file else [],
        hyperparameters=plain,
        method={
            "type": job.method.value,
            job.method.value: {"hyperparameters": job.hyperparameters},
        },
        seed=job.seed,
        trained_tokens=job.trained_tokens if has_ended else None,
        estimated_finish=None if has_ended else _seconds(job.estimated_finish_at),
        error=job.error if status is Status.FAILED else None,
        integrations=[],
        metadata=job.metadata,
        user_provided_suffix=job.suffix or None,
    )
    if job.state in PAUSED:
        shown.paused = True
    if named.model_is_deleted:
        shown.fine_tuned_model_deleted = True
    return shown


def event_object(event: JobEvent) -> schemas.JobEvent:
    """Return an event as OpenAI's FineTuningJobEvent; without metrics the field `data` is absent."""
    return schemas.JobEvent(
        id=event.id,
        object="fine_tuning.job.event",
        created_at=event.created_at // 1_000_000,
        level=event.level,
        type=event.type,
        message=event.message,
        data=UNSET if event.data is None else event.data,
    )


def metrics_object(curves: Curves) -> schemas.JobMetrics:
    """Return a job's curves."""
    return schemas.JobMetrics(
        object="fine_tuning.job.metrics",
        job_id=curves.job_id,
        step=curves.step,
        total_steps=curves.total_steps,
        **{
            name: [schemas.MetricPoint(point.step, point.value) for point in points]
            for name, points in curves.points.items()
        },
    )


def checkpoint_object(checkpoint: Checkpoint, job_id: str) -> schemas.Checkpoint:
    """Return a checkpoint as OpenAI's; if its model was deleted it has the field `deleted`."""
    return schemas.Checkpoint(
        id=checkpoint.id,
        object="fine_tuning.job.checkpoint",
        created_at=checkpoint.created_at // 1_000_000,
        fine_tuning_job_id=job_id,
        fine_tuned_model_checkpoint=checkpoint.model_id,
        step_number=checkpoint.step,
        metrics={name: value for name, value in checkpoint.metrics.items() if value is not None},
        deleted=True if checkpoint.is_deleted else UNSET,
    )


def permission_object(permission: Permission) -> schemas.Permission:
    """Return a permission as OpenAI's."""
    return schemas.Permission(
        id=permission.id,
        object="checkpoint.permission",
        created_at=permission.created_at // 1_000_000,
        project_id=permission.project_id,
    )


def _seconds(micros: int | None) -> int | None:
    return None if micros is None else micros // 1_000_000

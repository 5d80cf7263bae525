"""Persists a trainer's results: a checkpoint, the resume state, the final model.

Idempotent: each may be offered again after a crash. A step of a job has only one model: the first registered.
"""

import os
from collections.abc import Callable
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from tunewarden import audit
from tunewarden.artifacts.adapters import read_adapter_directory
from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import transitions
from tunewarden.finetuning.context import TrainingContext
from tunewarden.finetuning.endings import Cancelled, JobFailed
from tunewarden.finetuning.jobs import Job
from tunewarden.identity import organizations
from tunewarden.registry import models
from tunewarden.registry.file_rows import File
from tunewarden.registry.files import Owner
from tunewarden.registry.imports import Made, Ready, Sealed
from tunewarden.registry.models import Model
from tunewarden.trainer.messages import Checkpoint, Finished, State

RESULTS_PURPOSE = "fine-tune-results"


def take_checkpoint(context: TrainingContext, job: Job, checkpoint: Checkpoint, work: Path) -> None:
    """Register the adapter as a checkpoint model, unless it was registered before.

    Raises Error(UNAVAILABLE); JobFailed for an adapter that cannot be served.
    """
    with context.database.read() as tx:
        if models.made_by(tx, job.n, checkpoint.step) is not None:
            return
    config, weights = _adapter(context, work, checkpoint.directory)
    with closing(weights):
        ready = _checked(context, job, config, weights)
        with (
            context.imports.sealing(ready, job.project_id) as sealed,
            context.database.write() as tx,
        ):
            if not transitions.is_running(tx, job.n):
                raise Cancelled
            model = _registered(tx, context, job, sealed, checkpoint.step)
            transitions.checkpoint_made(
                tx, job, model.n, step=checkpoint.step, metrics=checkpoint.metrics
            )


def take_state(context: TrainingContext, job: Job, state: State, work: Path) -> None:
    """Encrypt the job's resume state, replacing the previous one. Raises Error."""
    context.states.save(job, state.step, within(work, state.directory))


def finish(
    context: TrainingContext,
    job: Job,
    finished: Finished,
    work: Path,
    end_trainer: Callable[[], None],
) -> None:
    """Register the model, store the results, and complete the job, atomically.

    `end_trainer` ends the trainer once it is not needed any more: it must be gone when the
    job is visible as succeeded. Raises like `take_checkpoint`; Cancelled.
    """
    config, weights = _adapter(context, work, finished.directory)
    with closing(weights), within(work, finished.results).open("rb") as results:
        ready = _checked(context, job, config, weights)
        with context.imports.sealing(ready, job.project_id) as sealed:
            end_trainer()

            def with_its_results(tx: Tx, file: File) -> None:
                model = _registered(tx, context, job, sealed, None)
                is_ours = transitions.succeeded(
                    tx,
                    job,
                    model_n=model.n,
                    model_id=model.id,
                    result_n=file.n,
                    trained_tokens=finished.trained_tokens,
                )
                if not is_ours:
                    raise Cancelled

            context.files.store(
                Owner(job.organization_id, job.project_id, job.created_by),
                filename="step_metrics.csv",
                purpose=RESULTS_PURPOSE,
                reader=results,
                within=with_its_results,
            )


def within(work: Path, named: str) -> Path:
    """Resolve a path from a trainer, which must be inside its directory. Raises Error(INVALID)."""
    path = Path(os.path.normpath(named))
    with suppress(OSError):
        if path.is_relative_to(work) and path.resolve().is_relative_to(work.resolve()):
            return path
    raise Error(Kind.INVALID, "The trainer named a path outside its directory.", code="bad_place")


def _adapter(context: TrainingContext, work: Path, named: str) -> tuple[bytes, BinaryIO]:
    return read_adapter_directory(within(work, named), context.imports.limits)


def _checked(context: TrainingContext, job: Job, config: bytes, weights: BinaryIO) -> Ready:
    try:
        return context.imports.check(job.base, BytesIO(config), weights)
    except Error as error:
        if error.kind is Kind.UNAVAILABLE:
            raise
        raise JobFailed(
            "invalid_adapter", f"What was trained cannot be served: {error.message}"
        ) from error


def _registered(
    tx: Tx, context: TrainingContext, job: Job, sealed: Sealed, step: int | None
) -> Model:
    made = Made(
        organization_id=job.organization_id,
        organization_name=organizations.name_of(tx, job.organization_id),
        project_id=job.project_id,
        created_by=job.created_by,
        suffix=job.suffix,
        job_n=job.n,
        step=step,
    )
    model = context.imports.register(tx, sealed, made)
    audit.record(
        tx,
        audit.EventType.MODEL_TRAINED,
        organization_id=job.organization_id,
        actor=audit.SERVER,
        resource_id=model.id,
        job=job.id,
        step=step,
    )
    return model

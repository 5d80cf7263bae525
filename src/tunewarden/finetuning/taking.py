"""What a trainer hands over becomes durable: a checkpoint, the state to go on from, the end.

Each may come again after a crash. A step of a job has one model, ever: the one that was made first.
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
from tunewarden.finetuning.jobs import Job
from tunewarden.finetuning.outcomes import Cancelled, Hopeless
from tunewarden.finetuning.parts import Parts
from tunewarden.identity import organizations
from tunewarden.registry.files import File, Owner
from tunewarden.registry.imports import Made, Ready, Sealed
from tunewarden.registry.models import Model
from tunewarden.trainer.messages import Checkpoint, Finished, State

RESULTS_PURPOSE = "fine-tune-results"


def take_checkpoint(parts: Parts, job: Job, checkpoint: Checkpoint, work: Path) -> None:
    """Make the adapter a model with a step, unless it was handed over before.

    Raises Error(UNAVAILABLE); Hopeless for an adapter that could not be served.
    """
    with parts.database.read() as tx:
        if transitions.model_of(tx, job.n, checkpoint.step) is not None:
            return
    config, weights = _adapter(parts, work, checkpoint.directory)
    with closing(weights):
        ready = _checked(parts, job, config, weights)
        with parts.imports.sealing(ready) as sealed, parts.database.write() as tx:
            if not transitions.is_running(tx, job.n):
                raise Cancelled
            model = _registered(tx, parts, job, sealed, checkpoint.step)
            transitions.checkpoint_made(
                tx, job, model.n, step=checkpoint.step, metrics=checkpoint.metrics
            )


def take_state(parts: Parts, job: Job, state: State, work: Path) -> None:
    """Seal what the job goes on from, in place of what it had. Raises Error."""
    parts.states.save(job, state.step, within(work, state.directory))


def finish(
    parts: Parts, job: Job, finished: Finished, work: Path, let_go: Callable[[], None]
) -> None:
    """Make the adapter a model, store the results, and let the job succeed: all at once, or nothing.

    `let_go` ends the trainer once it is not needed any more: nothing of it shall be left when the
    job is seen to have succeeded. Raises as `take_checkpoint` does; Cancelled.
    """
    config, weights = _adapter(parts, work, finished.directory)
    with closing(weights), within(work, finished.results).open("rb") as results:
        ready = _checked(parts, job, config, weights)
        with parts.imports.sealing(ready) as sealed:
            let_go()

            def with_its_results(tx: Tx, file: File) -> None:
                model = _registered(tx, parts, job, sealed, None)
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

            parts.files.store(
                Owner(job.organization_id, job.project_id, job.created_by),
                filename="step_metrics.csv",
                purpose=RESULTS_PURPOSE,
                reader=results,
                within=with_its_results,
            )


def within(work: Path, named: str) -> Path:
    """Return a path that a trainer named, which must be in its own directory. Raises Error(INVALID)."""
    path = Path(os.path.normpath(named))
    with suppress(OSError):
        if path.is_relative_to(work) and path.resolve().is_relative_to(work.resolve()):
            return path
    raise Error(Kind.INVALID, "The trainer named a place that is not its own.", code="bad_place")


def _adapter(parts: Parts, work: Path, named: str) -> tuple[bytes, BinaryIO]:
    return read_adapter_directory(within(work, named), parts.imports.limits)


def _checked(parts: Parts, job: Job, config: bytes, weights: BinaryIO) -> Ready:
    try:
        return parts.imports.check(job.base, BytesIO(config), weights)
    except Error as error:
        if error.kind is Kind.UNAVAILABLE:
            raise
        raise Hopeless(
            "invalid_adapter", f"What was trained cannot be served: {error.message}"
        ) from error


def _registered(tx: Tx, parts: Parts, job: Job, sealed: Sealed, step: int | None) -> Model:
    made = Made(
        organization_id=job.organization_id,
        organization_name=organizations.name_of(tx, job.organization_id),
        project_id=job.project_id,
        created_by=job.created_by,
        suffix=job.suffix,
        job_n=job.n,
        step=step,
    )
    model = parts.imports.register(tx, sealed, made)
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

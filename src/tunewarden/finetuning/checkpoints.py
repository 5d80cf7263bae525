"""A job's checkpoints: each is a model with metrics. Rows outlive the models."""

import json
from dataclasses import dataclass
from typing import Any

from tunewarden.db import cursors
from tunewarden.db.database import Database, Tx
from tunewarden.finetuning import jobs
from tunewarden.identity.policy import Caller
from tunewarden.ids import Prefix, mint
from tunewarden.registry.artifacts import State


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as lists show it; `created_at` is in microseconds."""

    id: str
    created_at: int
    step: int
    metrics: dict[str, Any]
    model_id: str
    is_deleted: bool


def insert(tx: Tx, job_n: int, model_n: int, *, step: int, metrics: dict[str, float]) -> None:
    """Insert a checkpoint of a job for a model registered in the same transaction."""
    tx.run(
        "INSERT INTO job_checkpoints (id, job_n, model_n, step, metrics, created_at)"
        " VALUES (:id, :job, :model, :step, :metrics, :now)",
        id=mint(Prefix.CHECKPOINT),
        job=job_n,
        model=model_n,
        step=step,
        metrics=json.dumps(metrics, allow_nan=False),
        now=tx.now_micros,
    )


def page(
    database: Database, caller: Caller, job_id: str, *, after: str | None, limit: int
) -> list[Checkpoint]:
    """Return up to `limit` checkpoints of a job, newest first; `after` is the cursor, one of them.

    One whose model was deleted stays, marked as deleted. Raises Error(FORBIDDEN, NOT_FOUND, INVALID).
    """
    job = jobs.retrieve(database, caller, job_id).job
    with database.read() as tx:
        before = cursors.position(
            tx.row,
            "SELECT n FROM job_checkpoints WHERE id = :after AND job_n = :job",
            after=after,
            first=cursors.AFTER_ALL,
            job=job.n,
        )
        rows = tx.rows(
            "SELECT c.id, c.created_at, c.step, c.metrics, a.id, a.state FROM job_checkpoints c"
            " JOIN artifacts a ON a.n = c.model_n WHERE c.job_n = :job AND c.n < :before"
            " ORDER BY c.n DESC LIMIT :limit",
            job=job.n,
            before=before,
            limit=limit,
        )
    gone = {State.DELETING, State.DELETED}
    return [
        Checkpoint(checkpoint_id, at, step, json.loads(metrics), model_id, state in gone)
        for checkpoint_id, at, step, metrics, model_id, state in rows
    ]

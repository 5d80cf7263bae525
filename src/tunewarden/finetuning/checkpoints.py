"""A job's checkpoints: each is a model, with the metrics that it had. Rows outlive the models."""

import json
from dataclasses import dataclass
from typing import Any

from tunewarden.db.database import Database
from tunewarden.finetuning import jobs
from tunewarden.identity.policy import Caller
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


def page(
    database: Database, caller: Caller, job_id: str, *, after: str | None, limit: int
) -> list[Checkpoint]:
    """Return up to `limit` checkpoints of a job, newest first; those older than `after`, if it is one.

    One whose model was deleted stays, and says so. Raises Error(FORBIDDEN, NOT_FOUND).
    """
    job = jobs.retrieve(database, caller, job_id).job
    with database.read() as tx:
        rows = tx.rows(
            "SELECT c.id, c.created_at, c.step, c.metrics, a.id, a.state FROM job_checkpoints c"
            " JOIN artifacts a ON a.n = c.model_n WHERE c.job_n = :job AND c.n < COALESCE((SELECT n"
            " FROM job_checkpoints WHERE id = :after AND job_n = :job), 9223372036854775807)"
            " ORDER BY c.n DESC LIMIT :limit",
            job=job.n,
            after=after,
            limit=limit,
        )
    gone = {State.DELETING, State.DELETED}
    return [
        Checkpoint(checkpoint_id, at, step, json.loads(metrics), model_id, state in gone)
        for checkpoint_id, at, step, metrics, model_id, state in rows
    ]

"""Events of jobs: messages and metrics. Append-only."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tunewarden.db import cursors
from tunewarden.db.database import Database, Tx
from tunewarden.finetuning import jobs
from tunewarden.identity.policy import Caller
from tunewarden.ids import Prefix, mint

Level = Literal["info", "warn", "error"]
METRICS_PAGE = 1000


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event; `created_at` is in microseconds. An event of metrics has `data`."""

    id: str
    created_at: int
    level: str
    type: str
    message: str
    data: dict[str, Any] | None


class Metrics(msgspec.Struct, gc=False):
    """What an event of metrics measured at a step. Of these many are read at once."""

    step: int
    total_steps: int = 0
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None


_METRICS = msgspec.json.Decoder(Metrics)


def record(
    tx: Tx,
    job_n: int,
    message: str,
    *,
    level: Level = "info",
    data: dict[str, Any] | None = None,
) -> None:
    """Record an event in the caller's transaction; of type metrics if there is data."""
    tx.run(
        "INSERT INTO job_events (id, job_n, created_at, level, type, message, data)"
        " VALUES (:id, :job, :now, :level, :type, :message, :data)",
        id=mint(Prefix.JOB_EVENT),
        job=job_n,
        now=tx.now_micros,
        level=level,
        type="message" if data is None else "metrics",
        message=message,
        data=None if data is None else json.dumps(data, allow_nan=False),
    )


def has(tx: Tx, job_n: int, message: str) -> bool:
    """Return whether a job has an event with this message."""
    sql = "SELECT 1 FROM job_events WHERE job_n = :n AND message = :message"
    return tx.row(sql, n=job_n, message=message) is not None


def page(
    database: Database, caller: Caller, job_id: str, *, after: str | None, limit: int
) -> list[JobEvent]:
    """Return up to `limit` events of a job, newest first; `after` is the cursor, one of them.

    Raises Error(FORBIDDEN, NOT_FOUND, INVALID).
    """
    job = jobs.retrieve(database, caller, job_id).job
    with database.read() as tx:
        before = cursors.position(
            tx.row,
            "SELECT n FROM job_events WHERE id = :after AND job_n = :job",
            after=after,
            first=cursors.AFTER_ALL,
            job=job.n,
        )
        rows = tx.rows(
            "SELECT id, created_at, level, type, message, data FROM job_events WHERE job_n = :job"
            " AND n < :before ORDER BY n DESC LIMIT :limit",
            job=job.n,
            before=before,
            limit=limit,
        )
    return [
        JobEvent(event_id, at, level, kind, message, None if data is None else json.loads(data))
        for event_id, at, level, kind, message, data in rows
    ]


def newest_metrics(database: Database, job_n: int, *, limit: int) -> Iterator[Metrics]:
    """Yield up to `limit` events with metrics, newest first: page by page, in constant memory."""
    before, left = cursors.AFTER_ALL, limit
    while left > 0:
        size = min(left, METRICS_PAGE)
        with database.read() as tx:
            rows = tx.rows(
                "SELECT n, data FROM job_events WHERE job_n = :job AND n < :before"
                " AND type = 'metrics' ORDER BY n DESC LIMIT :size",
                job=job_n,
                before=before,
                size=size,
            )
        yield from (_METRICS.decode(data) for _, data in rows)
        if len(rows) < size:
            return
        before, left = rows[-1][0], left - size

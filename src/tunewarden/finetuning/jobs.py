"""Fine-tuning jobs: their rows, and reading them. A row is never removed.

`status` is OpenAI's. Paused is `queued` with `is_paused`; a job that was cancelled has its status at
once, and `finished_at` when its trainer is gone and its saved state erased: until then it is unfinished.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.finetuning.hyperparameters import Method
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry.artifacts import ID_LENGTH_MAX, State

COLUMNS = (
    "j.n, j.id, j.internal_id, j.organization_id, j.project_id, j.status, j.is_paused, j.wish, j.model,"
    " j.base, j.start_n, j.training_n, j.validation_n, j.method, j.hyperparameters, j.suffix, j.seed,"
    " j.metadata, j.model_n, j.result_n, j.state_blobs, j.trained_tokens, j.error,"
    " j.estimated_finish_at, j.created_by, j.created_at, j.started_at, j.finished_at"
)
_OWN = (
    f"SELECT {COLUMNS} FROM jobs j WHERE j.id = :id AND j.organization_id = :organization"  # noqa: S608
    " AND j.project_id = :project"
)
# A job with the names of what it reads and makes; a tombstone keeps its name (I7).
_NAMED = (
    f"SELECT {COLUMNS}, t.id, v.id, r.id, m.id, m.state FROM jobs j"  # noqa: S608
    " JOIN artifacts t ON t.n = j.training_n LEFT JOIN artifacts v ON v.n = j.validation_n"
    " LEFT JOIN artifacts r ON r.n = j.result_n LEFT JOIN artifacts m ON m.n = j.model_n"
    " WHERE j.organization_id = :organization AND j.project_id = :project"
)
_JSON = frozenset({"hyperparameters", "metadata", "state_blobs", "error"})
_LAST_N = 9_223_372_036_854_775_807
PAGE_SIZE = 100


class Status(StrEnum):
    """Where a job is, by OpenAI's names."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# What a job is when nothing will be trained any more.
ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


class Wish(StrEnum):
    """What a job's runner shall do with its trainer."""

    CANCEL = "cancel"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Job:
    """A row of jobs. Times are microseconds; `*_n` are numbers of artifacts.

    `hyperparameters` has n_epochs, batch_size, learning_rate_multiplier and, for dpo, beta: numbers
    or "auto", until the trainer's plan is known. `error` is OpenAI's {code, message, param}.
    """

    n: int
    id: str
    internal_id: str
    organization_id: str
    project_id: str
    status: Status
    is_paused: bool
    wish: Wish | None
    model: str
    base: str
    start_n: int | None
    training_n: int
    validation_n: int | None
    method: Method
    hyperparameters: dict[str, Any]
    suffix: str
    seed: int
    metadata: dict[str, str] | None
    model_n: int | None
    result_n: int | None
    state_blobs: list[Any] | None
    trained_tokens: int | None
    error: dict[str, Any] | None
    estimated_finish_at: int | None
    created_by: str
    created_at: int
    started_at: int | None
    finished_at: int | None


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job with the public ids of its files and its model. `model_is_deleted` says that it is gone."""

    job: Job
    training_file: str
    validation_file: str | None
    result_file: str | None
    fine_tuned_model: str | None
    model_is_deleted: bool


def from_row(row: Row) -> Job:
    """Return a row of COLUMNS as a Job."""
    fields = dict(zip(Job.__slots__, row, strict=True))
    for name in _JSON:
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    fields["status"] = Status(fields["status"])
    fields["is_paused"] = bool(fields["is_paused"])
    fields["wish"] = Wish(fields["wish"]) if fields["wish"] else None
    fields["method"] = Method(fields["method"])
    return Job(**fields)


def find(database: Database, caller: Caller, job_id: str) -> Job | None:
    """Return a job of the caller's project, or None: foreign and unknown alike (I9)."""
    row = database.peek(
        _OWN,
        id=job_id,
        organization=caller.organization_id,
        project=caller.project_id,
    )
    return from_row(row) if row else None


def own(tx: Tx, caller: Caller, job_id: str) -> Job:
    """Return a job of the caller's project in a transaction. Raises Error(NOT_FOUND)."""
    row = tx.row(
        _OWN,
        id=job_id,
        organization=caller.organization_id,
        project=caller.project_id,
    )
    if row is None:
        raise missing(job_id)
    return from_row(row)


def by_n(tx: Tx, n: int) -> Job:
    """Return the job with this number; it must exist."""
    row = tx.row(f"SELECT {COLUMNS} FROM jobs j WHERE j.n = :n", n=n)  # noqa: S608
    assert row is not None, "a job's row is never removed"
    return from_row(row)


def that_need(tx: Tx, artifact_n: int) -> list[str]:
    """Return the ids of unfinished jobs that read an artifact, start from it or have made it."""
    rows = tx.rows(
        # One look-up each: there may be any number of unfinished jobs.
        "SELECT n, id FROM jobs WHERE training_n = :n AND finished_at IS NULL"
        " UNION SELECT n, id FROM jobs WHERE validation_n = :n AND finished_at IS NULL"
        " UNION SELECT n, id FROM jobs WHERE start_n = :n AND finished_at IS NULL"
        " UNION SELECT n, id FROM jobs WHERE n = (SELECT job_n FROM models WHERE n = :n)"
        " AND finished_at IS NULL ORDER BY n",
        n=artifact_n,
    )
    return [str(row[1]) for row in rows]


def count_unfinished(tx: Tx, caller: Caller) -> int:
    """Return how many jobs of the caller's project have not ended, paused ones included."""
    row = tx.row(
        "SELECT COUNT(*) FROM jobs WHERE project_id = :project AND finished_at IS NULL",
        project=caller.project_id,
    )
    return 0 if row is None else int(row[0])


def unfinished(tx: Tx) -> list[Job]:
    """Return every job that still runs, waits, or is being wound up; oldest first."""
    return [
        from_row(row)
        for row in tx.rows(
            f"SELECT {COLUMNS} FROM jobs j WHERE j.finished_at IS NULL ORDER BY j.n"  # noqa: S608
        )
    ]


def retrieve(database: Database, caller: Caller, job_id: str) -> NamedJob:
    """Return a job of the caller's project with the names in it. Raises Error(FORBIDDEN, NOT_FOUND)."""
    authorize(caller, Action.READ_JOBS)
    return named(database, caller, job_id)


def page(
    database: Database,
    caller: Caller,
    *,
    after: str | None,
    limit: int,
    matches: Callable[[Job], bool] = lambda _: True,
) -> list[NamedJob]:
    """Return up to `limit` jobs of the caller's project that match, newest first.

    Those made before the job `after`, if there is such a job. Raises Error(FORBIDDEN).
    """
    authorize(caller, Action.READ_JOBS)
    found: list[NamedJob] = []
    for named in _newest_first(database, caller, after):
        if len(found) == limit:
            break
        if matches(named.job):
            found.append(named)
    return found


def has_metadata(wanted: Mapping[str, str] | None) -> Callable[[Job], bool]:
    """Return what tells jobs that carry every `wanted` pair; None asks for jobs without metadata."""
    if wanted is None:
        return lambda job: job.metadata is None
    pairs = wanted.items()
    return lambda job: pairs <= (job.metadata or {}).items()


def missing(job_id: str) -> Error:
    """Return the one answer for a job that is unknown or foreign (I9)."""
    shown = job_id if len(job_id) <= ID_LENGTH_MAX else f"{job_id[:ID_LENGTH_MAX]}…"
    return Error(
        Kind.NOT_FOUND,
        f"Could not find fine tune: {shown}",
        param="fine_tuning_job_id",
        code="fine_tune_not_found",
    )


def named(database: Database, caller: Caller, job_id: str) -> NamedJob:
    """Return a job of the caller's project with the names in it. Raises Error(NOT_FOUND)."""
    row = database.peek(
        f"{_NAMED} AND j.id = :id",
        organization=caller.organization_id,
        project=caller.project_id,
        id=job_id,
    )
    if row is None:
        raise missing(job_id)
    return _with_names(row)


def _newest_first(database: Database, caller: Caller, after: str | None) -> Iterator[NamedJob]:
    """Yield jobs by pages that are read one at a time: flat memory, however few match."""
    last = find(database, caller, after) if after is not None else None
    before = last.n if last is not None else _LAST_N
    while True:
        with database.read() as tx:
            rows = tx.rows(
                f"{_NAMED} AND j.n < :before ORDER BY j.n DESC LIMIT :size",
                organization=caller.organization_id,
                project=caller.project_id,
                before=before,
                size=PAGE_SIZE,
            )
        yield from map(_with_names, rows)
        if len(rows) < PAGE_SIZE:
            return
        before = rows[-1][0]


def _with_names(row: Row) -> NamedJob:
    training, validation, result, model, state = row[-5:]
    is_deleted = state in {State.DELETING, State.DELETED}
    return NamedJob(from_row(row[:-5]), training, validation, result, model, is_deleted)

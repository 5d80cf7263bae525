"""Fine-tuning jobs: rows and queries. A row is never removed.

A job that ended gets `finished_at` when its trainer is gone and its saved state erased; until then it is unfinished.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden import ids
from tunewarden.db import cursors, lists
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import stages, states
from tunewarden.finetuning.hyperparameters import Method
from tunewarden.finetuning.states import State, Status
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts

COLUMNS = (
    "j.n, j.id, j.internal_id, j.organization_id, j.project_id, j.status, j.is_paused, j.wish, j.model,"
    " j.base, j.start_n, j.training_n, j.validation_n, j.method, j.hyperparameters, j.suffix, j.seed,"
    " j.metadata, j.model_n, j.result_n, j.state_blobs, j.trained_tokens, j.error,"
    " j.estimated_finish_at, j.created_by, j.created_at, j.started_at, j.finished_at, j.sealed_metadata"
)
_OWN = (
    f"SELECT {COLUMNS} FROM jobs j WHERE j.id = :id AND j.organization_id = :organization"
    " AND j.project_id = :project"
)
# A job with the ids of its inputs and outputs; a tombstone keeps its id (I7).
_NAMED = (
    f"SELECT {COLUMNS}, t.key_id, t.id, t.state, v.id, v.state, r.id, r.state, m.id, m.state FROM jobs j"
    " JOIN artifacts t ON t.n = j.training_n LEFT JOIN artifacts v ON v.n = j.validation_n"
    " LEFT JOIN artifacts r ON r.n = j.result_n LEFT JOIN artifacts m ON m.n = j.model_n"
    " WHERE j.organization_id = :organization AND j.project_id = :project"
)
_COLUMN_NAMES = tuple(name.strip(" j.") for name in COLUMNS.split(","))
_JSON = frozenset({"hyperparameters", "metadata", "state_blobs", "error"})
PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class Job:
    """A row of jobs. Times are microseconds; `*_n` are numbers of artifacts.

    `hyperparameters` has n_epochs, batch_size, learning_rate_multiplier and, for dpo, beta: numbers
    or "auto", until the trainer's plan is known. `error` is OpenAI's {code, message, param}. `metadata` is
    None until `metadata.opened` has decrypted it.
    """

    n: int
    id: str
    internal_id: str
    organization_id: str
    project_id: str
    state: State
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
    sealed_metadata: bytes | None

    @property
    def status(self) -> Status:
        """The state in OpenAI's words."""
        return self.state.status


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job with the public ids of its files and its model. `deleted`: those of them that were deleted."""

    job: Job
    training_key_id: str
    training_file: str
    validation_file: str | None
    result_file: str | None
    fine_tuned_model: str | None
    deleted: frozenset[str]

    @property
    def model_is_deleted(self) -> bool:
        """Whether its model was deleted."""
        return self.fine_tuned_model in self.deleted


def from_row(row: Row) -> Job:
    """Convert a row of COLUMNS."""
    fields = dict(zip(_COLUMN_NAMES, row, strict=True))
    for name in _JSON:
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    is_paused, wish = fields.pop("is_paused"), fields.pop("wish")
    fields["state"] = states.stored(fields.pop("status"), is_paused, wish, fields["finished_at"])
    fields["method"] = Method(fields["method"])
    return Job(**fields)


def find(database: Database, caller: Caller, job_id: str) -> Job | None:
    """Return a job of the caller's project, or None; foreign and unknown ones are indistinguishable (I9)."""
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


def by_idempotency(tx: Tx, caller: Caller, idempotency_sha256: bytes | None) -> Job | None:
    """Return the job of the caller's project that a request with this key made, or None."""
    if idempotency_sha256 is None:
        return None
    row = tx.row(
        f"SELECT {COLUMNS} FROM jobs j WHERE j.project_id = :project AND j.idempotency_sha256 = :digest",
        project=caller.project_id,
        digest=idempotency_sha256,
    )
    return from_row(row) if row else None


def by_n(tx: Tx, n: int) -> Job:
    """Return the job with this number; it must exist."""
    row = tx.row(f"SELECT {COLUMNS} FROM jobs j WHERE j.n = :n", n=n)
    assert row is not None, "a job's row is never removed"
    return from_row(row)


def that_need(tx: Tx, artifact_n: int) -> list[str]:
    """Return the ids of unfinished jobs that read an artifact, start from it or created it."""
    rows = tx.rows(
        # One index look-up each: there may be any number of unfinished jobs.
        "SELECT n, id FROM jobs WHERE training_n = :n AND finished_at IS NULL"
        " UNION SELECT n, id FROM jobs WHERE validation_n = :n AND finished_at IS NULL"
        " UNION SELECT n, id FROM jobs WHERE start_n = :n AND finished_at IS NULL"
        " UNION SELECT n, id FROM jobs WHERE n = (SELECT job_n FROM models WHERE n = :n)"
        " AND finished_at IS NULL ORDER BY n",
        n=artifact_n,
    )
    return [str(row[1]) for row in rows]


def needed_among(tx: Tx, numbers: Sequence[int]) -> set[int]:
    """Return which of these artifacts have jobs that need them: `that_need`."""
    found: set[int] = set()
    for listed, values in lists.parts(numbers):
        rows = tx.rows(
            f"SELECT training_n FROM jobs WHERE training_n IN ({listed}) AND finished_at IS NULL"
            f" UNION SELECT validation_n FROM jobs WHERE validation_n IN ({listed}) AND finished_at IS NULL"
            f" UNION SELECT start_n FROM jobs WHERE start_n IN ({listed}) AND finished_at IS NULL"
            " UNION SELECT m.n FROM models m JOIN jobs j ON j.n = m.job_n"
            f" WHERE m.n IN ({listed}) AND j.finished_at IS NULL",
            **values,
        )
        found.update(int(row[0]) for row in rows)
    return found


def unfinished_that_need(tx: Tx, artifact_n: int) -> list[Job]:
    """Return the jobs of `that_need`."""
    rows = [
        tx.row(f"SELECT {COLUMNS} FROM jobs j WHERE j.id = :id", id=job_id)
        for job_id in that_need(tx, artifact_n)
    ]
    return [from_row(row) for row in rows if row is not None]


def is_unfinished(tx: Tx, internal_id: str) -> bool:
    """Return whether an unfinished job has this internal id."""
    sql = "SELECT 1 FROM jobs WHERE internal_id = :id AND finished_at IS NULL"
    return tx.row(sql, id=internal_id) is not None


def count_unfinished(tx: Tx, project_id: str) -> int:
    """Return how many jobs of a project have not ended, paused ones included."""
    row = tx.row(
        "SELECT COUNT(*) FROM jobs WHERE project_id = :project AND finished_at IS NULL",
        project=project_id,
    )
    return 0 if row is None else int(row[0])


def retrieve(database: Database, caller: Caller, job_id: str) -> NamedJob:
    """Return a job of the caller's project with its public ids. Raises Error(FORBIDDEN, NOT_FOUND)."""
    authorize(caller, Action.READ_JOBS)
    return named(database, caller, job_id)


def page(
    database: Database,
    caller: Caller,
    *,
    after: str | None,
    limit: int,
    opened: Callable[[list[NamedJob]], list[NamedJob]] = list,
    matches: Callable[[Job], bool] = lambda _: True,
    stage: str | None = None,
) -> list[NamedJob]:
    """Return up to `limit` matching jobs of the caller's project, newest first.

    `after` is the cursor, a job of the project. `opened` decrypts metadata. `stage`: one of `stages.STAGES`. Raises Error(FORBIDDEN, INVALID).
    """
    authorize(caller, Action.READ_JOBS)
    found: list[NamedJob] = []
    for some in _newest_first(database, caller, after, stage):
        found += [named for named in opened(some) if matches(named.job)][: limit - len(found)]
        if len(found) == limit:
            break
    return found


def has_metadata(wanted: Mapping[str, str] | None) -> Callable[[Job], bool]:
    """Return a predicate for jobs with every `wanted` pair; None: for jobs without metadata."""
    if wanted is None:
        return lambda job: job.metadata is None
    pairs = wanted.items()
    return lambda job: pairs <= (job.metadata or {}).items()


def missing(job_id: str) -> Error:
    """Return the one answer for a job that is unknown or foreign (I9)."""
    return Error(
        Kind.NOT_FOUND,
        f"Could not find fine tune: {ids.shown(job_id)}",
        param="fine_tuning_job_id",
        code="fine_tune_not_found",
    )


def named(database: Database, caller: Caller, job_id: str) -> NamedJob:
    """Return a job of the caller's project with its public ids. Raises Error(NOT_FOUND)."""
    row = database.peek(
        f"{_NAMED} AND j.id = :id",
        organization=caller.organization_id,
        project=caller.project_id,
        id=job_id,
    )
    if row is None:
        raise missing(job_id)
    return _with_names(row)


def _newest_first(
    database: Database, caller: Caller, after: str | None, stage: str | None
) -> Iterator[list[NamedJob]]:
    """Yield jobs page by page: constant memory, however few match."""
    before = cursors.position(
        database.peek,
        "SELECT n FROM jobs WHERE id = :after AND organization_id = :organization AND project_id = :project",
        after=after,
        first=cursors.AFTER_ALL,
        organization=caller.organization_id,
        project=caller.project_id,
    )
    is_in_stage = "" if stage is None else f" AND {stages.STAGES[stage]}"
    while True:
        with database.read() as tx:
            rows = tx.rows(
                f"{_NAMED}{is_in_stage} AND j.n < :before ORDER BY j.n DESC LIMIT :size",
                organization=caller.organization_id,
                project=caller.project_id,
                before=before,
                size=PAGE_SIZE,
            )
        yield [_with_names(row) for row in rows]
        if len(rows) < PAGE_SIZE:
            return
        before = rows[-1][0]


def _with_names(row: Row) -> NamedJob:
    key_id, *named = row[-9:]
    ids, states_of = named[::2], named[1::2]
    gone = {artifacts.State.DELETING, artifacts.State.DELETED}
    deleted = frozenset(
        str(one) for one, state in zip(ids, states_of, strict=True) if state in gone
    )
    training, validation, result, model = ids
    return NamedJob(from_row(row[:-9]), key_id, training, validation, result, model, deleted)

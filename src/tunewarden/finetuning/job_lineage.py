"""Which jobs stand between an artifact and what learned from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden.db import lists
from tunewarden.db.database import Row, Tx
from tunewarden.finetuning import states
from tunewarden.finetuning.states import State

COLUMNS = f"n, id, project_id, training_n, start_n, result_n, {states.COLUMNS}"


@dataclass(frozen=True, slots=True)
class LearningJob:
    """A job, what it read (`*_n` are numbers of artifacts) and its result file."""

    n: int
    id: str
    project_id: str
    training_n: int
    start_n: int | None
    result_n: int | None
    state: State

    @property
    def origins(self) -> list[int]:
        """Return the numbers of what it learned from: a validation file is only measured on."""
        return [self.training_n, *([] if self.start_n is None else [self.start_n])]


def learned_from(tx: Tx, artifact_n: int) -> list[LearningJob]:
    """Return the jobs that trained on a file, or started from a model: finished ones too."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM jobs WHERE training_n = :n"
        f" UNION SELECT {COLUMNS} FROM jobs WHERE start_n = :n ORDER BY n",
        n=artifact_n,
    )
    return [_of_row(row) for row in rows]


def origins_among(tx: Tx, numbers: Sequence[int]) -> set[int]:
    """Return which of these artifacts a job learned from, or measured on for a result file."""
    found: set[int] = set()
    for listed, values in lists.parts(numbers):
        rows = tx.rows(
            f"SELECT training_n FROM jobs WHERE training_n IN ({listed})"
            f" UNION SELECT start_n FROM jobs WHERE start_n IN ({listed})"
            f" UNION SELECT validation_n FROM jobs WHERE validation_n IN ({listed}) AND result_n IS NOT NULL",
            **values,
        )
        found.update(int(row[0]) for row in rows)
    return found


def results_measured_on(tx: Tx, artifact_n: int) -> list[int]:
    """Return the numbers of the result files of jobs that measured on a file."""
    sql = "SELECT result_n FROM jobs WHERE validation_n = :n AND result_n IS NOT NULL ORDER BY n"
    return [row[0] for row in tx.rows(sql, n=artifact_n)]


def measured_by(tx: Tx, result_n: int) -> list[int]:
    """Return the number of the validation file whose metrics a result file has, if there is one."""
    sql = "SELECT validation_n FROM jobs WHERE result_n = :n AND validation_n IS NOT NULL"
    return [row[0] for row in tx.rows(sql, n=result_n)]


def by_n(tx: Tx, job_n: int) -> LearningJob:
    """Return the job with this number; it must exist."""
    row = tx.row(f"SELECT {COLUMNS} FROM jobs WHERE n = :n", n=job_n)
    assert row is not None, "a job's row is never removed"
    return _of_row(row)


def maker_of(tx: Tx, artifact_n: int) -> int | None:
    """Return the number of the job that made a model, a checkpoint or a result file; None if none did."""
    row = tx.row(
        "SELECT job_n FROM models WHERE n = :n AND job_n IS NOT NULL"
        " UNION ALL SELECT n FROM jobs WHERE result_n = :n",
        n=artifact_n,
    )
    return None if row is None else int(row[0])


def _of_row(row: Row) -> LearningJob:
    n, job_id, project_id, training_n, start_n, result_n, *stored = row
    state = states.stored(*stored)
    return LearningJob(n, job_id, project_id, training_n, start_n, result_n, state)

"""What the last canary of each base found: one row a base."""

import json
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.db.database import Database, Row

# How many intervals may pass until the last run that passed is overdue.
PATIENCE = 2
COLUMNS = (
    "base, result, found, first_at, began_at, ended_at, passed_at, deletion_micros, erased_micros"
)


class Result(StrEnum):
    """How a run ended."""

    PASSED = "passed"
    FAILED = "failed"  # something was there that must not be
    NOT_DONE = "not_done"  # such as without an engine: nothing is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run found.

    `deletion_micros` is the time of the DELETE, as its client saw it; `erased_micros` is that until the blobs were erased,
    from the same moment. None if it did not get there.
    """

    result: Result
    found: tuple[str, ...] = ()
    deletion_micros: int | None = None
    erased_micros: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The last run on a base. Times are microseconds since 1970: of the first one, and of the last that passed."""

    base: str
    outcome: Outcome
    first_at: int
    began_at: int
    ended_at: int
    passed_at: int | None

    @property
    def not_passed_since(self) -> int:
        """Since when no run has passed."""
        return self.first_at if self.passed_at is None else self.passed_at


def overdue_micros(not_passed_since: int, now: int, interval_seconds: float) -> int:
    """Return for how long a run that passes is overdue; 0 if it is not."""
    return max(0, now - not_passed_since - int(PATIENCE * interval_seconds * 1_000_000))


def last(database: Database) -> dict[str, Run]:
    """Return the last run of each base that had one, by the base's name."""
    with database.read() as tx:
        rows = tx.rows(f"SELECT {COLUMNS} FROM canary_runs ORDER BY base")
    return {str(row[0]): _of_row(row) for row in rows}


def record(database: Database, base: str, outcome: Outcome, began_at: int) -> None:
    """Store a run that ended now, in place of the one before it."""
    with database.write() as tx:
        has_passed = outcome.result is Result.PASSED
        tx.run(
            f"INSERT INTO canary_runs ({COLUMNS}) VALUES (:base, :result, :found, :began, :began, :now, :passed, :deletion,"
            " :erased) ON CONFLICT (base) DO UPDATE SET result = excluded.result, found = excluded.found,"
            " began_at = excluded.began_at, ended_at = excluded.ended_at,"
            " passed_at = COALESCE(excluded.passed_at, canary_runs.passed_at),"
            " deletion_micros = excluded.deletion_micros, erased_micros = excluded.erased_micros",
            base=base,
            result=outcome.result.value,
            found=json.dumps(outcome.found),
            began=began_at,
            now=tx.now_micros,
            passed=tx.now_micros if has_passed else None,
            deletion=outcome.deletion_micros,
            erased=outcome.erased_micros,
        )


def _of_row(row: Row) -> Run:
    base, result, found, first_at, began_at, ended_at, passed_at, deletion, erased = row
    outcome = Outcome(
        result=Result(result),
        found=tuple(json.loads(found)),
        deletion_micros=deletion,
        erased_micros=erased,
    )
    return Run(
        base=base,
        outcome=outcome,
        first_at=first_at,
        began_at=began_at,
        ended_at=ended_at,
        passed_at=passed_at,
    )

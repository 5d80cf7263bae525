"""Curves of a job: what its events measured, by step, in at most so many points.

The steps are divided into buckets of one width, which depends on the job's length only. A bucket shows its least and
its greatest value, each at its step: no peak is lost, and what is drawn does not move while the job goes on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tunewarden.db.database import Database
from tunewarden.finetuning import events, jobs
from tunewarden.identity.policy import Caller

TRAINING = ("train_loss", "train_mean_token_accuracy")
VALIDATION = ("valid_loss", "valid_mean_token_accuracy")
POINTS_MIN, POINTS_DEFAULT, POINTS_MAX = 2, 200, 1000
# An attempt records some thousand events; this many are read, the newest ones.
EVENTS_MAX = 20_000
Measured = tuple[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Point:
    """One value, and the step that it was measured at."""

    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Curves:
    """A job's curves, by the names of its events. `step`: the last one that was recorded."""

    job_id: str
    step: int | None
    total_steps: int | None
    points: dict[str, list[Point]]


def retrieve(database: Database, caller: Caller, job_id: str, *, points: int) -> Curves:
    """Return a job's curves, each of up to `points`. Raises Error(FORBIDDEN, NOT_FOUND)."""
    job = jobs.retrieve(database, caller, job_id).job
    return drawn(job.id, events.newest_metrics(database, job.n, limit=EVENTS_MAX), points)


def drawn(job_id: str, newest_first: Iterable[dict[str, Any]], points: int) -> Curves:
    """Return the curves of metrics that are read newest first."""
    measured = _each_step_once(newest_first)
    newest = next(measured, None)
    if newest is None:
        return Curves(job_id, None, None, {name: [] for name in TRAINING + VALIDATION})
    total = max(newest[0], newest[1].get("total_steps", 0))
    width = -(-total // (points // 2))
    curves = {name: _Buckets(width) for name in TRAINING + VALIDATION}
    validated: Measured | None = None
    for step, data in (newest, *measured):
        _put(curves, TRAINING, (step, data))
        # The last figures of the validation file are repeated until it is measured again.
        if validated is not None and any(data.get(n) != validated[1].get(n) for n in VALIDATION):
            _put(curves, VALIDATION, validated)
        validated = step, data
    if validated is not None:
        _put(curves, VALIDATION, validated)
    return Curves(job_id, newest[0], total, {name: one.points() for name, one in curves.items()})


def _each_step_once(newest_first: Iterable[dict[str, Any]]) -> Iterator[Measured]:
    """Yield steps downwards. What an attempt measured beyond the state that it was resumed from counts no more."""
    last: int | None = None
    for data in newest_first:
        step = data["step"]
        if last is None or step < last:
            last = step
            yield step, data


def _put(curves: dict[str, "_Buckets"], names: tuple[str, ...], measured: Measured) -> None:
    step, data = measured
    for name in names:
        if name in data:
            curves[name].put(step, data[name])


@dataclass(slots=True)
class _Buckets:
    """The extremes of each bucket, as (value, step); of equal values the earliest, as steps come downwards."""

    width: int
    least: dict[int, tuple[float, int]] = field(default_factory=dict)
    most: dict[int, tuple[float, int]] = field(default_factory=dict)

    def put(self, step: int, value: float) -> None:
        number = (step - 1) // self.width
        least, most = self.least.get(number), self.most.get(number)
        if least is None or value <= least[0]:
            self.least[number] = value, step
        if most is None or value >= most[0]:
            self.most[number] = value, step

    def points(self) -> list[Point]:
        found = {step: value for of in (self.least, self.most) for value, step in of.values()}
        return [Point(step, found[step]) for step in sorted(found)]

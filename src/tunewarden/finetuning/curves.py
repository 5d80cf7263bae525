"""Curves of a job: what its events measured, by step, in at most so many points.

The steps are divided into buckets of one width, which depends on the job's length only. A bucket shows its least and
its greatest value, each at its step: no peak is lost, and what is drawn does not move while the job goes on.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter, itemgetter

from tunewarden.db.database import Database
from tunewarden.finetuning import events, jobs
from tunewarden.finetuning.events import Metrics
from tunewarden.identity.policy import Caller

TRAINING = ("train_loss", "train_mean_token_accuracy")
VALIDATION = ("valid_loss", "valid_mean_token_accuracy")
POINTS_MIN, POINTS_DEFAULT, POINTS_MAX = 2, 200, 1000
# An attempt records some thousand events; this many are read, the newest ones.
EVENTS_MAX = 20_000
_STEP, _VALUE = itemgetter(0), itemgetter(1)


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


def drawn(job_id: str, newest_first: Iterable[Metrics], points: int) -> Curves:
    """Return the curves of metrics that are read newest first."""
    measured = _each_step_once(newest_first)
    if not measured:
        return Curves(job_id, None, None, {name: [] for name in TRAINING + VALIDATION})
    newest = measured[-1]
    total = max(newest.step, newest.total_steps)
    width = -(-total // (points // 2))
    # The last figures of the validation file are repeated until it is measured again.
    validated = [next(same) for _, same in groupby(measured, attrgetter(*VALIDATION))]
    curves = {name: _extremes(measured, name, width) for name in TRAINING}
    curves |= {name: _extremes(validated, name, width) for name in VALIDATION}
    return Curves(job_id, newest.step, total, curves)


def _each_step_once(newest_first: Iterable[Metrics]) -> list[Metrics]:
    """Return steps upwards. What an attempt measured beyond the state that it was resumed from counts no more."""
    found: list[Metrics] = []
    last = math.inf
    for one in newest_first:
        if one.step < last:
            last = one.step
            found.append(one)
    return found[::-1]


def _extremes(measured: Sequence[Metrics], name: str, width: int) -> list[Point]:
    """Return the least and the greatest value of each bucket, by step; of equal values the earliest."""
    value_of = attrgetter(name)
    figures = [(one.step, value) for one in measured if (value := value_of(one)) is not None]
    found: list[Point] = []
    # Bucket by bucket, and within one by functions of C: there may be thousands of figures, and a page waits.
    begin = 0
    while begin < len(figures):
        last_step = ((figures[begin][0] - 1) // width + 1) * width
        end = bisect_right(figures, last_step, begin, key=_STEP)
        bucket = figures[begin:end]
        extremes = {min(bucket, key=_VALUE), max(bucket, key=_VALUE)}
        found += [Point(step, value) for step, value in sorted(extremes)]
        begin = end
    return found

"""Whose turn it is: fair between projects, first come first served within each. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that could start; the oldest has the smallest `n`."""

    n: int
    project_id: str


def next_job(
    waiting: Iterable[Waiting], running: Mapping[str, int], served: Mapping[str, int]
) -> Waiting | None:
    """Return the job to start next, or None if none waits.

    `running` counts each project's running jobs, `served` says when (in any unit) its last one was
    started. A project without a running job waits for at most one start of each other project.
    """
    return min(
        waiting,
        key=lambda job: (running.get(job.project_id, 0), served.get(job.project_id, -1), job.n),
        default=None,
    )

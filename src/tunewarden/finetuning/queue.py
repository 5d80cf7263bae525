"""Job scheduling: fair between organizations, then between their projects, then FIFO. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that can start; the oldest has the smallest `n`."""

    n: int
    organization_id: str
    project_id: str


def next_job(
    waiting: Iterable[Waiting], running: Mapping[str, int], served: Mapping[str, int]
) -> Waiting | None:
    """Return the job to start next, or None if none waits.

    By ids of organizations and projects, `running` counts running jobs and `served` is the time (in
    any unit) of the last start. An organization without a running job waits for at most one
    start of each other organization, and so does a project among its organization's.
    """
    return min(
        waiting,
        key=lambda job: (
            running.get(job.organization_id, 0),
            served.get(job.organization_id, -1),
            running.get(job.project_id, 0),
            served.get(job.project_id, -1),
            job.n,
        ),
        default=None,
    )

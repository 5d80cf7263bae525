"""What needs attention: each finding with a link. Only what the caller may read, and a few of each kind."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.deletion import unfinished
from tunewarden.finetuning import jobs
from tunewarden.finetuning.states import Status
from tunewarden.identity.policy import Action, allows
from tunewarden.registry import retention_notices, retention_pause
from tunewarden.webhooks.endpoint_rows import DisabledBecause

OF_A_KIND = 5
JOBS_LOOKED_AT = 20
FAILED_MICROS = 7 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Need:
    """Something that needs attention: what, of which `id`, since or at when (microseconds), and the page about it."""

    said: str
    id: str
    at: int | None
    page: str


def of(visit: Visit) -> list[Need]:
    """Return what needs attention, the most urgent kind first."""
    kinds: tuple[tuple[Action, Callable[[Visit], Iterator[Need]]], ...] = (
        (Action.READ_DELETIONS, _deletions),
        (Action.READ_RETENTION, _pause),
        (Action.READ_RETENTION, _due),
        (Action.READ_WEBHOOKS, _webhooks),
        (Action.READ_JOBS, _jobs),
    )
    return [
        need for action, found in kinds if allows(visit.caller, action) for need in found(visit)
    ]


def _deletions(visit: Visit) -> Iterator[Need]:
    database = visit.operations.database
    for one in unfinished.unanswered_of(database, visit.caller, limit=OF_A_KIND):
        said = "A deletion is not finished; it goes on by itself"
        yield Need(said, one.artifact_id, one.requested_at, f"/console/deletions/{one.id}")


def _pause(visit: Visit) -> Iterator[Need]:
    pause = visit.operations.retention.pause_of(visit.caller)
    if pause is not None:
        said = f"Retention rules are paused: {retention_pause.SAID[pause.reason]}"
        yield Need(said, "", pause.since, "/console/retention")


def _due(visit: Visit) -> Iterator[Need]:
    with visit.operations.database.read() as tx:
        due = retention_notices.due_first(tx, visit.caller.organization_id, limit=OF_A_KIND)
    for model_id, notice in due:
        said = "A retention rule will delete a model"
        yield Need(said, model_id, notice.due_at, f"/console/models/{segment(model_id)}")


def _webhooks(visit: Visit) -> Iterator[Need]:
    found = visit.operations.webhooks.page(visit.caller, after=None, limit=JOBS_LOOKED_AT)
    for one in (shown.endpoint for shown in found):
        if one.disabled_because not in {None, DisabledBecause.OWNER}:
            said = "Nothing is sent to a webhook endpoint any more"
            yield Need(said, one.id, one.disabled_at, f"/console/webhooks/{one.id}")


def _jobs(visit: Visit) -> Iterator[Need]:
    database = visit.operations.database
    since = visit.session.now - FAILED_MICROS
    found = jobs.page(database, visit.caller, after=None, limit=JOBS_LOOKED_AT)
    failed = [one.job for one in found if one.job.status is Status.FAILED]
    for job in failed[:OF_A_KIND]:
        if (job.finished_at or 0) >= since:
            said = "A fine-tuning job failed"
            yield Need(said, job.id, job.finished_at, f"/console/jobs/{job.id}")

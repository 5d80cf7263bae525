"""Fine-tuning jobs: the list, and one job with its curves, its events as they come, and its checkpoints."""

from collections.abc import Collection, Sequence

from starlette.responses import Response

from tunewarden.console import charts, confirming, following, lists, rendering, tables
from tunewarden.console.charts import Chart, Drawn, Series
from tunewarden.console.following import Mark
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.deletion import records
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import checkpoints, commands, curves, events, jobs, metadata, stages
from tunewarden.finetuning.curves import Curves, Point
from tunewarden.finetuning.jobs import Job, NamedJob
from tunewarden.finetuning.states import FINISHED, PAUSED
from tunewarden.identity.policy import Action, allows

# Of a curve that is 640 px wide; its figures stand in a table too.
POINTS = 120
CHECKPOINTS_MAX = 100


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[NamedJob], str | None]:
    found = jobs.page(
        visit.operations.database,
        visit.caller,
        after=after,
        limit=limit + 1,
        stage=_stage(visit) or None,
    )
    return lists.cut(found, lambda one: one.job.id, limit)


def _stage(visit: Visit) -> str:
    return visit.asked.asked_choice("state", stages.STAGES)


JOBS = Table[NamedJob](
    "jobs",
    _read,
    {
        "id": lambda one: one.job.id,
        "status": lambda one: status_of(one.job),
        "model": lambda one: one.job.model,
        "fine_tuned_model": lambda one: one.fine_tuned_model,
        "fine_tuned_model_is_deleted": lambda one: one.model_is_deleted,
        "created_at": lambda one: tables.instant(one.job.created_at),
        "finished_at": lambda one: tables.instant(one.job.finished_at),
    },
)


@tables.also_as(JOBS)
def list_jobs(visit: Visit) -> Response:
    """Return a page of the project's jobs, the newest first, all or those in one state."""
    _, values = JOBS.page(visit)
    values |= {
        "status_of": status_of,
        "state": _stage(visit),
        "states": list(stages.STAGES),
        "counts": stages.count_unended(visit.operations.database, visit.caller),
    }
    return rendering.page(visit, "jobs.html", values)


def show_job(visit: Visit) -> Response:
    """Return one job."""
    database, caller, job_id = (
        visit.operations.database,
        visit.caller,
        visit.asked.segments["job_id"],
    )
    named = jobs.retrieve(database, caller, job_id)
    [named] = metadata.opened(visit.operations.files.keyring, [named])
    drawn = curves.retrieve(database, caller, job_id, points=POINTS)
    found = events.page(
        database,
        caller,
        job_id,
        after=visit.asked.asked_for("after") or None,
        limit=lists.PAGE_ROWS + 1,
    )
    rows, cursor = lists.cut(found, lambda one: one.id)
    made = checkpoints.page(database, caller, job_id, after=None, limit=CHECKPOINTS_MAX)
    values = {
        "named": named,
        "job": named.job,
        "status": status_of(named.job),
        "curves": drawn,
        "charts": _charts(drawn),
        "events": rows,
        "checkpoints": made,
        "deletions": _deletions_of(
            visit, {*named.deleted, *(one.model_id for one in made if one.is_deleted)}
        ),
        "acts": _acts(named.job),
        "has_ended": named.job.state in FINISHED,
        "write_action": Action.WRITE_JOBS,
        **lists.paged(visit, cursor),
    }
    return rendering.page(visit, "job.html", values)


def _deletions_of(visit: Visit, deleted: Collection[str]) -> dict[str, str]:
    """Return the deletions, with their receipts, of what was deleted, if the caller may read them."""
    if not allows(visit.caller, Action.READ_DELETIONS):
        return {}
    database, caller = visit.operations.database, visit.caller
    found = {one: records.of_artifact(database, caller, one) for one in deleted}
    return {artifact_id: one.id for artifact_id, one in found.items() if one is not None}


@confirming.proved({"cancel": "Cancel the job"})
def change_job(visit: Visit) -> Response:
    """Pause, resume or cancel a job. Who cancels one, which may make way for a deletion, proves who it is."""
    of, caller, job_id = visit.operations, visit.caller, visit.asked.segments["job_id"]
    act = visit.asked.sent("act")
    if act == "pause":
        commands.pause(of.database, of.clock, caller, job_id)
    elif act == "resume":
        commands.resume(of.database, caller, job_id)
    elif act == "cancel":
        commands.cancel(of.database, of.clock, caller, job_id)
    else:
        raise Error(Kind.INVALID, "The form does not say what to do with the job.")
    return rendering.to(f"/console/jobs/{segment(job_id)}")


async def follow_job(visit: Visit) -> Response:
    """Tell the browser whenever there is more of a job."""
    return await following.follow(visit, _mark)


def _mark(visit: Visit) -> Mark:
    database, caller, job_id = (
        visit.operations.database,
        visit.caller,
        visit.asked.segments["job_id"],
    )
    state = jobs.retrieve(database, caller, job_id).job.state
    newest = events.page(database, caller, job_id, after=None, limit=1)
    last = newest[0].id if newest else "-"
    return Mark(state in FINISHED, f"{state.name} {last}")


def status_of(job: Job) -> str:
    """Return a job's status for people."""
    return stages.of(job.state)


def _acts(job: Job) -> list[tuple[str, str]]:
    """Return what one click does to a job, with its words; cancelling, which nothing undoes, takes a second step."""
    if job.state.has_ended:
        return []
    return [("resume", "Resume") if job.state in PAUSED else ("pause", "Pause")]


def _charts(found: Curves) -> list[Drawn]:
    charted = []
    for name, title in (("loss", "Loss"), ("mean_token_accuracy", "Accuracy")):
        trained, validated = found.points[f"train_{name}"], found.points[f"valid_{name}"]
        if trained or validated:
            some = [Series("training", _figures(trained))]
            if validated:
                some.append(Series("validation", _figures(validated)))
            x_end = None if found.total_steps is None else float(found.total_steps)
            chart = Chart(name, title, "step", some, x_end=x_end, y_from_zero=name != "loss")
            charted.append(charts.lines(chart))
    return charted


def _figures(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(float(point.step), point.value) for point in points]


PAGES = (
    Page("GET", "/console/jobs", list_jobs),
    Page("GET", "/console/jobs/{job_id}", show_job),
    Page("POST", "/console/jobs/{job_id}", change_job),
    Page("GET", "/console/jobs/{job_id}/changes", follow_job),
)

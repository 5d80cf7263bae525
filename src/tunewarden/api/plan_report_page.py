"""The report of the plan of a case as a page that can be printed."""

from collections.abc import Iterator
from html import escape

from tunewarden.api import report_page
from tunewarden.api.report_page import facts, table
from tunewarden.deletion.plan_report import PlannedMember, PlanReport

NO_REASON = "only Owners read it"


def page(report: PlanReport) -> Iterator[str]:
    """Yield the page piece by piece."""
    yield report_page.begin(f"Plan of a case: nothing was deleted of {report.file}")
    yield f"<p>{escape(report.statement)}</p>"
    yield facts(
        {
            "it would be": report.outcome,
            "begins with": report.file,
            "this report": f"made {report.made_at} for {report.made_by} by {report.software}",
            "fingerprint of the plan": report.fingerprint,
        }
    )
    yield from _found(report)
    yield from _held(report)
    yield from _blockers(report)
    exported = [(one.artifact, of) for one in report.members for of in one.exports]
    yield from report_page.not_reached(
        "What the case would not reach", report.not_reached, exported
    )
    yield report_page.END


def _found(report: PlanReport) -> Iterator[str]:
    found = report.found
    yield "<h2>What was found, and would be deleted</h2>"
    yield (
        f"<p>{found.members} members: {found.models} models and checkpoints, {found.files} files. {found.hidden} more"
        f" belong to it and are in other projects. {report.deleting} are being deleted already.</p>"
    )
    rows = ((one.artifact, _kind(one)) for one in report.members)
    yield from table(("model or file", "what it is"), rows)
    if report.jobs or report.hidden_jobs:
        yield (
            f"<p>Jobs that would be cancelled: {escape(', '.join(report.jobs) or 'none')}; of other projects:"
            f" {report.hidden_jobs}.</p>"
        )


def _kind(one: PlannedMember) -> str:
    kind = "checkpoint" if one.is_checkpoint else one.kind
    return f"{kind} (declared by an Owner, not seen here)" if one.is_declared else kind


def _held(report: PlanReport) -> Iterator[str]:
    yield "<h2>What is held, and why</h2>"
    if not report.held:
        yield "<p>No hold is on any member.</p>"
        return
    yield "<p>Nothing deletes past a hold. An Owner lifts it.</p>"
    rows = (
        (
            one.artifact,
            one.id,
            f"{one.placed_at} by {one.placed_by}",
            NO_REASON if one.reason is None else one.reason,
        )
        for one in report.held
    )
    yield from table(("model or file", "hold", "placed", "why"), rows)


def _blockers(report: PlanReport) -> Iterator[str]:
    if report.blockers:
        yield "<h2>What else blocks it</h2>"
        rows = ((one.artifact, f"{one.type}: {one.id}", one.lifted_by) for one in report.blockers)
        yield from table(("model or file", "blocked by", "what lifts that"), rows)

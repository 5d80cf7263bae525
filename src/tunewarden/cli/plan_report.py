"""The report of the plan of a case as lines for a terminal."""

import click

from tunewarden.cli import case_report
from tunewarden.cli.client import Object
from tunewarden.cli.output import line, show_table


def show(report: Object) -> None:
    """Print a report: the members as a table, and the rest as lines."""
    found = report["found"]
    line("plan", report["statement"])
    line("file", report["file"])
    line("would be", report["outcome"])
    line("made", f"{report['made_at']} for {report['made_by']}")
    line("found", f"{found['models']} models, {found['files']} files; {found['hidden']} hidden")
    show_table(
        ("artifact", "kind"),
        (
            (one["artifact"], "checkpoint" if one["is_checkpoint"] else one["kind"])
            for one in report["members"]
        ),
    )
    for one in report["jobs"]:
        line("job that would be cancelled", one)
    for one in report["held"]:
        why = "only Owners read why" if one["reason"] is None else one["reason"]
        line("held", f"{one['artifact']} by {one['id']}, placed {one['placed_at']}: {why}")
    for one in report["blockers"]:
        line("blocker", f"{one['artifact']} by {one['type']} {one['id']}. {one['lifted_by']}")
    case_report.show_not_reached(report)
    click.echo("This is a plan. Nothing was deleted.", err=True)

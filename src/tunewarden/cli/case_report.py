"""A case's report as lines for a terminal."""

from tunewarden.cli.client import Object
from tunewarden.cli.output import line, show_table


def show(report: Object) -> None:
    """Print a report: its members as a table, and the rest as lines."""
    found, checked = report["found"], report["verification"]
    line("case", f"{report['case']}, {report['status']}")
    line("began with", report["file"] or "a list of artifacts")
    line("requested", f"{report['requested_at']} by {report['requested_by']}")
    line("finished", report["finished_at"] or "not yet")
    line("found", f"{found['models']} models, {found['files']} files; {found['hidden']} hidden")
    show_table(
        ("artifact", "status", "deleted", "blobs erased", "receipt"),
        (
            (
                one["artifact"],
                one["status"],
                one["deleted_at"] or "-",
                one["blobs_erased_at"] or "-",
                _said(one["receipt"]),
            )
            for one in report["members"]
        ),
    )
    line("held", f"{report['held']['hidden']}. {report['held']['why']}")
    for one in report["held"]["lifted"]:
        line(
            "lifted", f"{one['artifact']} by {one['id']}, {one['lifted_at']} by {one['lifted_by']}"
        )
    show_not_reached(report)
    line("summary", _said(report["summary"]))
    line("log", f"{checked['log']}, {checked['log_size']} entries; key {checked['log_key_sha256']}")
    line("verified", f"{checked['valid']} of {checked['receipts']} receipts are valid")
    for one in checked["how"]:
        line("how", one)


def show_not_reached(report: Object) -> None:
    """Print what is beyond a case, also of a plan's report."""
    for one in report["not_reached"]:
        count = "unknown" if one["count"] is None else one["count"]
        line("not reached", f"{one['what']}: {count}. {one['why']}")


def _said(receipt: Object | None) -> str:
    if receipt is None:
        return "-"
    return f"entry {receipt['log_index']}, {'valid' if receipt['is_valid'] else 'NOT VALID'}"

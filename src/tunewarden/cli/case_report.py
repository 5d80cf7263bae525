"""A case's report as lines for a terminal."""

import click

from tunewarden.cli.client import Object
from tunewarden.cli.output import plain, show_table


def show(report: Object) -> None:
    """Print a report: its members as a table, and the rest as lines."""
    found, checked = report["found"], report["verification"]
    _line("case", f"{report['case']}, {report['status']}")
    _line("began with", report["file"] or "a list of artifacts")
    _line("requested", f"{report['requested_at']} by {report['requested_by']}")
    _line("finished", report["finished_at"] or "not yet")
    _line("found", f"{found['models']} models, {found['files']} files; {found['hidden']} hidden")
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
    _line("held", f"{report['held']['hidden']}. {report['held']['why']}")
    for one in report["not_reached"]:
        count = "unknown" if one["count"] is None else one["count"]
        _line("not reached", f"{one['what']}: {count}. {one['why']}")
    _line("summary", _said(report["summary"]))
    _line(
        "log", f"{checked['log']}, {checked['log_size']} entries; key {checked['log_key_sha256']}"
    )
    _line("verified", f"{checked['valid']} of {checked['receipts']} receipts are valid")
    for one in checked["how"]:
        _line("how", one)


def _said(receipt: Object | None) -> str:
    if receipt is None:
        return "-"
    return f"entry {receipt['log_index']}, {'valid' if receipt['is_valid'] else 'NOT VALID'}"


def _line(name: str, text: object) -> None:
    click.echo(f"{name}: {plain(text)}")

"""The report of a case as a page that can be printed."""

from collections.abc import Iterator, Sequence
from html import escape

from tunewarden.api import report_page
from tunewarden.api.report_page import facts, table
from tunewarden.deletion.cases.case_report import CaseReport, ReportedMember


def page(report: CaseReport) -> Iterator[str]:
    """Yield the page piece by piece."""
    yield report_page.begin(f"Deletion case {report.case}")
    yield facts(
        {
            "status": report.status,
            "began with": report.file or "a list of artifacts",
            "requested": f"{report.requested_at} by {report.requested_by}",
            "finished": report.finished_at or "not yet",
            "this report": f"made {report.made_at} by {report.software}",
        }
    )
    yield from _deleted(report)
    yield from _held(report)
    exported = [(one.artifact, of) for one in report.members for of in one.exports]
    yield from report_page.not_reached("What was not reached", report.not_reached, exported)
    yield from _receipts(report)
    yield report_page.END


def _deleted(report: CaseReport) -> Iterator[str]:
    found = report.found
    yield "<h2>What was found</h2>"
    yield (
        f"<p>{found.members} members: {found.models} models and checkpoints, {found.files} files."
        f" {found.hidden} more belong to it and are in other projects.</p>"
    )
    yield "<h2>What was deleted</h2>"
    head = (
        "model or file",
        "status",
        "key erased",
        "deleted",
        "sealed files erased",
        "engines",
        "log",
    )
    yield from table(head, map(_member, report.members))


def _held(report: CaseReport) -> Iterator[str]:
    held = report.held
    yield "<h2>What was held, and why</h2>"
    yield f"<p>{held.hidden} members were not deleted. {escape(held.why)}</p>"
    if held.lifted:
        yield "<p>Holds that were lifted before:</p>"
        rows = (
            (
                one.artifact,
                one.id,
                f"{one.placed_at} by {one.placed_by}",
                f"{one.lifted_at} by {one.lifted_by}",
            )
            for one in held.lifted
        )
        yield from table(("model or file", "hold", "placed", "lifted"), rows)


def _receipts(report: CaseReport) -> Iterator[str]:
    checked = report.verification
    yield "<h2>Receipts, and how each is verified</h2>"
    yield facts(
        {
            "log": f"{checked.log}, {checked.log_size} entries",
            "log key": f"SHA-256 of its PEM: {checked.log_key_sha256}",
            "verified for this report": f"{checked.valid} of {checked.receipts} receipts are valid",
        }
    )
    yield "<ol>"
    for one in checked.how:
        yield f"<li>{escape(one)}</li>"
    yield "</ol>"
    receipts = [("summary of the case", report.summary)]
    receipts += [(one.artifact, one.receipt) for one in report.members]
    rows = (
        (what, one.path, str(one.log_index), one.sha256, "valid" if one.is_valid else "NOT VALID")
        for what, one in receipts
        if one is not None
    )
    yield from table(("receipt of", "path", "log entry", "SHA-256", "verified"), rows)


def _member(one: ReportedMember) -> Sequence[str]:
    entries = [one.receipt and one.receipt.log_index, one.second_log_index]
    return (
        one.artifact,
        one.status,
        f"{one.key_erased_at or 'not yet'} {f'({one.key})' if one.key else ''}",
        one.deleted_at or "not yet",
        one.blobs_erased_at or "not yet",
        "; ".join(one.engines) or "none had it",
        ", ".join(str(entry) for entry in entries if entry is not None),
    )

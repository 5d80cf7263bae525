"""The report of a case as a page that can be printed: no scripts, nothing from elsewhere."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from tunewarden.api.docs_page import POLICY, STYLE
from tunewarden.deletion.cases.case_report import CaseReport, ReportedMember

HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": f"{POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
PRINTED = (
    "td{overflow-wrap:anywhere}dt{font-weight:bold}dd{margin:0 0 .5rem}"
    "@media print{body{max-width:none;margin:0;font-size:10pt}tr{break-inside:avoid}thead{display:table-header-group}}"
)


def page(report: CaseReport) -> Iterator[str]:
    """Yield the page piece by piece."""
    title = escape(f"Deletion case {report.case}")
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta name="robots" content="noindex"><title>{title}</title><style>{STYLE}{PRINTED}</style></head>'
        f"<body><main><h1>{title}</h1>"
    )
    yield _facts(
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
    yield from _not_reached(report)
    yield from _receipts(report)
    yield "</main></body></html>\n"


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
    yield from _table(head, map(_member, report.members))


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
        yield from _table(("model or file", "hold", "placed", "lifted"), rows)


def _not_reached(report: CaseReport) -> Iterator[str]:
    yield "<h2>What was not reached</h2>"
    rows = (
        (one.what, "cannot be known" if one.count is None else str(one.count), one.why)
        for one in report.not_reached
    )
    yield from _table(("what", "known of", "why"), rows)
    exported = [(one.artifact, of) for one in report.members for of in one.exports]
    if exported:
        yield "<h3>Exports</h3>"
        rows = ((artifact, of.exported_at, of.exported_by) for artifact, of in exported)
        yield from _table(("model", "exported", "by"), rows)


def _receipts(report: CaseReport) -> Iterator[str]:
    checked = report.verification
    yield "<h2>Receipts, and how each is verified</h2>"
    yield _facts(
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
    yield from _table(("receipt of", "path", "log entry", "SHA-256", "verified"), rows)


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


def _facts(facts: dict[str, str]) -> str:
    shown = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{''.join(shown)}</dl>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    yield f"<table><thead><tr>{names}</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody></table>"

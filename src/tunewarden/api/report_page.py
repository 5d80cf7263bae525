"""What pages of reports share. They can be printed: no scripts, nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from starlette.responses import StreamingResponse

from tunewarden.api.docs_page import STYLE
from tunewarden.deletion.cases.case_report import ReportedExport
from tunewarden.deletion.cases.not_reached import NotReached

PRINTED = (
    "body{overflow-wrap:anywhere}th{overflow-wrap:normal}dt{font-weight:bold}dd{margin:0 0 .5rem}"
    # A row of a narrow page is a card: a cell a line, with its column's name.
    "@media screen and (max-width:46rem){table,tbody,tr,td{display:block;border:0}thead{display:none}"
    "tr{border:1px solid #ccc;margin-bottom:.5rem}td::before{content:attr(data-label) ': ';font-weight:bold}}"
    "@media print{body{max-width:none;margin:0;font-size:10pt}tr{break-inside:avoid}thead{display:table-header-group}}"
)
STYLED = STYLE + PRINTED
# The one style that the page may have, by its hash: a report is a single file, so the style is inside.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLED.encode()).digest()).decode()
HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
}
END = "</main></body></html>\n"


def answer(pieces: Iterable[str]) -> StreamingResponse:
    """Return the answer that sends a page piece by piece."""
    encoded = (piece.encode() for piece in pieces)
    return StreamingResponse(encoded, media_type="text/html", headers=HEADERS)


def begin(title: str) -> str:
    """Return a page up to its title."""
    title = escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta name="robots" content="noindex"><title>{title}</title><style>{STYLED}</style></head>'
        f"<body><main><h1>{title}</h1>"
    )


def not_reached(
    heading: str, found: Iterable[NotReached], exported: Sequence[tuple[str, ReportedExport]]
) -> Iterator[str]:
    """Yield what a case does not reach, and which models were exported."""
    yield f"<h2>{heading}</h2>"
    rows = (
        (one.what, "cannot be known" if one.count is None else str(one.count), one.why)
        for one in found
    )
    yield from table(("what", "known of", "why"), rows)
    if exported:
        yield "<h3>Exports</h3>"
        rows = ((artifact, of.exported_at, of.exported_by) for artifact, of in exported)
        yield from table(("model", "exported", "by"), rows)


def facts(named: dict[str, str]) -> str:
    """Return names with what they stand for."""
    shown = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in named.items())
    return f"<dl>{''.join(shown)}</dl>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table row by row."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    yield f"<table><thead><tr>{names}</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(map(_cell, head, row))}</tr>"
    yield "</tbody></table>"


def _cell(name: str, said: str) -> str:
    return f'<td data-label="{escape(name)}">{escape(said)}</td>'

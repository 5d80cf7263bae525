"""docs/reference/errors.md has every code that the API gives, with its statuses; and every kind of error.

After a change that is meant: `make references` writes the statuses. A new code
needs a row, with why and what to do.
"""

import re
from pathlib import Path

import pytest
from tests.support.references import error_codes, pages

from tunewarden.errors import Kind
from tunewarden.problems import FINAL, WIRE

PAGE = Path(__file__).parents[2] / "docs/reference/errors.md"
ROW = re.compile(r"^\| `([a-z_]+)` \| ([^|]*) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_every_code_of_the_source_has_a_row_and_no_other() -> None:
    assert error_codes.hidden() == error_codes.HIDDEN.keys()
    codes = [code for code, *_ in ROW.findall(PAGE.read_text("utf-8"))]
    assert sorted(codes) == sorted(error_codes.statuses())


def test_the_statuses_are_those_of_the_source(pytestconfig: pytest.Config) -> None:
    statuses = error_codes.statuses()
    page = ROW.sub(
        lambda row: f"| `{row[1]}` | {statuses[row[1]]} | {row[3]} | {row[4]} |", _page()
    )
    pages.hold(PAGE, page, pytestconfig)


def test_every_row_says_why_and_what_to_do() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|(.*)\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    wrong = [code for code, rest in rows if not all(one.strip() for one in rest.split("|"))]
    assert wrong == []


def test_control_codes_are_read_from_the_source() -> None:
    found = error_codes.statuses()
    assert found["model_deleted"] == "404"
    assert found["not_offered"] == "400, 404"
    assert found["on_hold"] == "409"
    assert found["invalid_training_file"] == "job"
    assert "adapter_not_loaded" not in found


def _page() -> str:
    rows = "".join(
        f"| {status} | {one.value.replace('_', ' ')} | `{kind}` | {_retried(one)} |\n"
        for one, (status, kind) in sorted(WIRE.items(), key=lambda item: item[1])
    )
    return pages.with_table(
        PAGE.read_text("utf-8"),
        "kinds",
        f"| status | what | `type` | do SDKs retry it |\n|---|---|---|---|\n{rows}",
    )


def _retried(kind: Kind) -> str:
    """What an SDK does: it retries 408, 409, 429 and 5xx, unless `x-should-retry` is false."""
    if kind in FINAL:
        return "only with `retry-after`"
    status, _ = WIRE[kind]
    return "yes" if status in {408, 409, 429} or status >= 500 else "no"

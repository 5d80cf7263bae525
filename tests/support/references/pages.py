"""Generated parts of the documents: between marks of a page, written by `--update-golden`, compared by each run."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Made = Callable[[], str]
COLUMNS = 118


def with_table(text: str, name: str, table: str) -> str:
    """Return a page's text with what its marks `name` enclose replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    assert (text.count(begin), text.count(end)) == (1, 1), f"a page has the marks of {name} once"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{table}{end}{after}"


def hold(page: Path, text: str, config: pytest.Config) -> None:
    """Check that a page has this text; with `--update-golden` write it first."""
    if config.getoption("--update-golden"):
        page.write_text(text, "utf-8")
    assert page.read_text("utf-8") == text


def wrapped(text: str) -> str:
    """Return a paragraph, or an item of a list, in lines that are not too long to read."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(
        text, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )

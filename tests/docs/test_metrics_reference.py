"""docs/reference/metrics.md shows every metric as src/tunewarden/metrics/families.py declares it.

After a change that is meant: `pytest tests/docs/test_metrics_reference.py --update-golden`, and read the difference.
"""

from pathlib import Path

import pytest

from tunewarden.metrics.families import FAMILIES, Family

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->"


def test_the_reference_shows_the_metrics_as_they_are_declared(pytestconfig: pytest.Config) -> None:
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    head = "| metric | type | labels | meaning |\n|---|---|---|---|\n"
    page = f"{before}{BEGIN}{head}{''.join(map(_row, FAMILIES))}{END}{after}"
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page


def test_names_and_units_are_prometheus() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert list(family.bounds) == sorted(family.bounds)
        assert bool(family.bounds) == (family.kind == "histogram")
        assert not family.bounds or family.name.endswith("_seconds")


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.meaning} |\n"

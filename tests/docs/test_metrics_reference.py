"""docs/reference/metrics.md shows every metric as src/tunewarden/metrics/families.py declares it.

After a change that is meant: `pytest tests/docs/test_metrics_reference.py --update-golden`, and read the difference.
"""

from pathlib import Path

import pytest
from tests.support.references import pages

from tunewarden.metrics.families import FAMILIES, Family

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_the_reference_shows_the_metrics_as_they_are_declared(pytestconfig: pytest.Config) -> None:
    head = "| metric | type | labels | meaning |\n|---|---|---|---|\n"
    table = head + "".join(map(_row, FAMILIES))
    pages.hold(PAGE, pages.with_table(PAGE.read_text("utf-8"), "metrics", table), pytestconfig)


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

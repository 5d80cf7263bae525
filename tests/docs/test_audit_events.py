"""docs/reference/audit-events.md names every type of event, and says which are OpenAI's.

After a change that is meant: `pytest tests/docs/test_audit_events.py --update-golden`, and read the difference.
"""

from pathlib import Path

import pytest
from tests.support.references import pages

from tunewarden.api.administration.audit_views import OPENAI
from tunewarden.audit import EventType
from tunewarden.audit.meanings import MEANINGS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit-events.md"


def test_the_reference_shows_every_type_with_its_meaning(pytestconfig: pytest.Config) -> None:
    head = "| type | OpenAI's | meaning |\n| --- | --- | --- |\n"
    rows = "".join(
        f"| `{one.value}` | {'yes' if one.value in OPENAI else ''} | {MEANINGS[one]} |\n"
        for one in sorted(EventType)
    )
    pages.hold(PAGE, pages.with_table(PAGE.read_text("utf-8"), "events", head + rows), pytestconfig)


def test_every_type_has_a_meaning_and_nothing_else_has() -> None:
    assert MEANINGS.keys() == set(EventType)

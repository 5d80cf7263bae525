"""docs/reference/audit-events.md names every type of event, and says which are OpenAI's.

After a change that is meant: `pytest tests/docs/test_audit_events.py --update-golden`, and read the difference.
"""

from pathlib import Path

import pytest

from tunewarden.api.administration.audit_views import OPENAI
from tunewarden.audit import EventType
from tunewarden.audit.meanings import MEANINGS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit-events.md"
BEGIN, END = "<!-- events: begin -->\n", "<!-- events: end -->"


def test_the_reference_shows_every_type_with_its_meaning(pytestconfig: pytest.Config) -> None:
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    head = "| type | OpenAI's | meaning |\n| --- | --- | --- |\n"
    rows = "".join(
        f"| `{one.value}` | {'yes' if one.value in OPENAI else ''} | {MEANINGS[one]} |\n"
        for one in sorted(EventType)
    )
    page = f"{before}{BEGIN}{head}{rows}{END}{after}"
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page


def test_every_type_has_a_meaning_and_nothing_else_has() -> None:
    assert MEANINGS.keys() == set(EventType)

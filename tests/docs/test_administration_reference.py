"""docs/reference/administration.md shows roles and refusals as the code has them.

After a change that is meant: `pytest tests/docs/test_administration_reference.py --update-golden`, and read the
difference.
"""

from pathlib import Path

import pytest
from tests.support.references import pages

from tunewarden.api.administration import not_offered
from tunewarden.identity.policy import OF_PROJECT_ROLE, OF_ROLE, Action, ProjectRole, Role

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "administration.md"


def _roles() -> str:
    head = (
        "| scope of the action | Owner | viewer | member | project owner |\n|---|---|---|---|---|\n"
    )
    columns = (
        OF_ROLE[Role.OWNER],
        *(
            OF_PROJECT_ROLE[role]
            for role in (ProjectRole.VIEWER, ProjectRole.MEMBER, ProjectRole.OWNER)
        ),
    )
    rows = (
        f"| `{action.value}` | {' | '.join('yes' if action in column else '' for column in columns)} |\n"
        for action in Action
    )
    assert OF_ROLE[Role.READER] == frozenset(), "a reader has the roles in projects only"
    return head + "".join(rows)


def _not_offered() -> str:
    found: dict[str, str] = {}
    for row in not_offered.TABLE:
        found.setdefault(row.what, row.instead)
    lines = "".join(f"| {what} | {instead} |\n" for what, instead in found.items())
    return f"| what | instead |\n|---|---|\n{lines}"


def test_the_page_shows_what_the_code_has(pytestconfig: pytest.Config) -> None:
    page = PAGE.read_text("utf-8")
    for name, table in (("roles", _roles()), ("not offered", _not_offered())):
        page = pages.with_table(page, name, table)
    pages.hold(PAGE, page, pytestconfig)

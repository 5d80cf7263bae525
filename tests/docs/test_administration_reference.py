"""docs/reference/administration.md shows roles and refusals as the code has them.

After a change that is meant: `pytest tests/docs/test_administration_reference.py --update-golden`, and read the
difference.
"""

import re
from pathlib import Path

import pytest

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
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        assert len(pattern.findall(page)) == 1
        page = pattern.sub((f"{begin}{table}{end}").replace("\\", r"\\"), page)
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page

"""docs/reference/clients.md shows the clients as tests/clients tries them; the recipes are short, and each is run.

After a change that is meant: `pytest tests/docs/test_clients.py --update-golden`, and read the difference.
"""

import ast

import pytest
from tests.clients import environments
from tests.clients.catalog import BROWSER, CLIENTS, Client
from tests.clients.recipes import ROOT, Recipe, recipes
from tests.support.references import pages

PAGE = ROOT / "docs" / "reference" / "clients.md"
CODE_LINES_MAX = 20
KNOWN = {one.name: one for one in (*CLIENTS, BROWSER)}


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.file)
def test_a_recipe_is_short_and_its_client_is_tried(recipe: Recipe) -> None:
    lines = [line for line in recipe.code.splitlines() if line.strip()]
    assert len(lines) <= CODE_LINES_MAX
    assert recipe.client in KNOWN
    if recipe.file.endswith(".py"):
        ast.parse(recipe.code)


def test_the_reference_shows_what_is_tried(pytestconfig: pytest.Config) -> None:
    pages.hold(PAGE, pages.with_table(PAGE.read_text("utf-8"), "clients", _table()), pytestconfig)


def test_no_pins_name_a_place_that_packages_came_from() -> None:
    for file in environments.PINS.rglob("package-lock.json"):
        assert '"resolved"' not in file.read_text("utf-8"), file


def _table() -> str:
    works = sum(not one.fails for one in KNOWN.values())
    return (
        f"{works} of {len(KNOWN)} work in their default use.\n\n"
        "| client | version | what was done | works | why not |\n|---|---|---|---|---|\n"
        + "".join(_row(one) for one in KNOWN.values())
    )


def _row(client: Client) -> str:
    page = {one.client: one.page for one in recipes()}.get(client.name)
    title = client.title
    if page is not None:
        title = f"[{title}](../{page.relative_to(ROOT / 'docs').as_posix()})"
    works = "no" if client.fails else "yes"
    return f"| {title} | {client.version} | {client.does} | {works} | {client.fails} |\n"

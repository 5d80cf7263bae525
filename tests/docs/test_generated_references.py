"""docs/reference/http.md and command-options.md are what the routes and the commands say of themselves.

After a change that is meant: `pytest tests/docs/test_generated_references.py --update-golden`, and read the difference.
"""

import re
from pathlib import Path

import pytest
from tests.support.references import command_line, http_api, pages

REFERENCE = Path(__file__).parents[2] / "docs/reference"


@pytest.mark.parametrize(
    ("file", "name", "made"),
    [
        ("http.md", "routes", http_api.markdown),
        ("command-options.md", "options", command_line.markdown),
    ],
)
def test_a_reference_is_what_its_source_says(
    file: str, name: str, made: pages.Made, pytestconfig: pytest.Config
) -> None:
    page = REFERENCE / file
    text = pages.with_table(page.read_text("utf-8"), name, made())
    pages.hold(page, text, pytestconfig)


def test_control_every_route_is_there_with_who_may_ask() -> None:
    page = (REFERENCE / "http.md").read_text("utf-8")
    routes = re.findall(r"^### `([A-Z]+ [^`]+)`$", page, re.MULTILINE)
    document = http_api.described()
    assert sorted(routes) == sorted(
        f"{method.upper()} {path}" for path, of in document["paths"].items() for method in of
    )
    deleting = page.split("### `DELETE /v1/models/{model_id}`")[1].split("###")[0]
    assert "- Who: an API key of an Owner, with the scope `api.delete`\n" in deleting
    assert "| `force` | query | boolean |" in deleting
    assert "Refusals: 401, 403, 404" in deleting
    users = page.split("### `GET /v1/organization/users`")[1].split("###")[0]
    assert "- Who: an admin key\n" in users


def test_control_a_command_has_its_options() -> None:
    page = (REFERENCE / "command-options.md").read_text("utf-8")
    deleting = page.split("### models delete\n")[1].split("###")[0]
    assert "tunewarden models delete [OPTIONS] MODEL_ID" in deleting
    assert "| `--dry-run` | Show what would be done, without doing it. |" in deleting

"""The references of routes, options and events of webhooks are what the code says of itself.

After a change that is meant: `make references`, and read the difference.
"""

import re
from pathlib import Path

import pytest
from tests.support.references import command_line, http_api, pages

from tunewarden.webhooks.event_types import MEANINGS, WebhookEventType

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference"


def _webhook_events() -> str:
    rows = "".join(f"| `{one.value}` | {MEANINGS[one]} |\n" for one in WebhookEventType)
    return f"| type | sent when |\n| --- | --- |\n{rows}"


@pytest.mark.parametrize(
    ("file", "name", "made"),
    [
        ("reference/http.md", "routes", http_api.markdown),
        ("reference/command-options.md", "options", command_line.markdown),
        ("how-to/receive-webhooks.md", "types", _webhook_events),
    ],
)
def test_a_reference_is_what_its_source_says(
    file: str, name: str, made: pages.Made, pytestconfig: pytest.Config
) -> None:
    page = DOCS / file
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


def test_every_event_of_webhooks_has_a_meaning() -> None:
    assert MEANINGS.keys() == set(WebhookEventType)

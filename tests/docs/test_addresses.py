"""Addresses that texts name are those of routes: the pages', and those of the report of a case, which goes to others."""

import re
from pathlib import Path

from tests.support.references import http_api

from tunewarden.deletion.cases import case_report

ROOT = Path(__file__).parents[2]
TEXTS = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), Path(case_report.__file__))
NAMED = re.compile(r"(?<![\w.}/)])/(?:v1|log|\.well-known)/[\w{}<>$./:-]*")


def test_every_address_that_a_text_names_is_a_route_or_where_some_begin() -> None:
    routes = [path.split("/") for path in http_api.described()["paths"]]
    named = {one.rstrip("./:") for text in TEXTS for one in NAMED.findall(text.read_text("utf-8"))}
    assert {"/log/checkpoint", "/v1/models"} < named
    assert [
        one for one in sorted(named) if not any(_begins(route, one.split("/")) for route in routes)
    ] == []


def _begins(route: list[str], named: list[str]) -> bool:
    """Return whether a route begins with what is named; `{path}`, its last part, is any number of parts."""
    if route[-1] == "{path}":
        named = named[: len(route)]
    return len(named) <= len(route) and all(
        of == one or of.startswith("{") for of, one in zip(route, named, strict=False)
    )

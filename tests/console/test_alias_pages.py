"""Aliases at the console: made, split, switched, rolled back and removed by the API's own operations."""

import html
import re
from collections.abc import Iterator

import pytest
from tests.support import fine_tuning_rows as rows
from tests.support.console import HIDDEN, Visitor, sign_in_a_while_ago
from tests.support.servers import Server

from tunewarden.console import lists

HERE = "/console/aliases"


@pytest.fixture(scope="module")
def models(server: Server) -> tuple[str, str]:
    return server.make_model().id, server.make_model().id


@pytest.fixture
def alias(server: Server, models: tuple[str, str]) -> Iterator[str]:
    """An alias of the first model."""
    name = "console-test"
    server.post("/v1/aliases", {"name": name, "model": models[0]})
    yield name
    server.request("DELETE", f"/v1/aliases/{name}", key=server.owner_key)


def _weights(server: Server, name: str) -> dict[str, int]:
    found = server.get(f"/v1/aliases/{name}", key=server.owner_key).json
    return {one["model"]: one["weight"] for one in found["targets"]}


def test_an_alias_is_made_with_a_split_and_removed(
    server: Server, owner: Visitor, models: tuple[str, str]
) -> None:
    form = {"name": " split ", "model": [models[0], "", models[1]], "weight": ["9", "", ""]}
    made = owner.post(HERE, form)
    assert (made.status, made.header("location")) == (303, f"{HERE}/split")
    assert _weights(server, "split") == {models[0]: 9, models[1]: 1}
    page = owner.text(f"{HERE}/split")
    assert "90 %" in page
    assert "10 %" in page
    assert f'href="{HERE}/split"' in owner.text(HERE)
    assert f'href="{HERE}/split"' in owner.text(f"/console/models/{models[1]}")
    assert owner.post(HERE, form).status == 409, "the name is taken"
    removed = owner.post(f"{HERE}/split", {"act": "remove"})
    assert (removed.status, removed.header("location")) == (303, HERE)
    assert owner.get(f"{HERE}/split").status == 404
    assert owner.get(f"/console/models/{models[0]}").status == 200, "the model stays"


def test_it_is_switched_and_rolled_back_and_each_act_is_in_the_audit_log(
    server: Server, owner: Visitor, models: tuple[str, str], alias: str
) -> None:
    here = f"{HERE}/{alias}"
    switched = owner.post(here, {"act": "switch", "model": models[1], "weight": ""})
    assert (switched.status, switched.header("location")) == (303, here)
    assert _weights(server, alias) == {models[1]: 1}
    page = owner.text(here)
    assert page.count('value="roll-back"') == 1, "the current version is nothing to go back to"
    assert owner.post(here, {"act": "roll-back", "version": "1"}).status == 303
    assert _weights(server, alias) == {models[0]: 1}
    assert owner.post(here, {"act": "roll-back", "version": "9"}).status == 404
    assert rows.audited(server, alias)[-3:] == [
        "alias.created",
        "alias.updated",
        "alias.updated",
    ]


def test_what_cannot_be_pointed_to_changes_nothing(
    server: Server, owner: Visitor, models: tuple[str, str], alias: str
) -> None:
    here = f"{HERE}/{alias}"
    for form, status in (
        ({"model": ""}, 400),
        ({"model": "ft:unknown"}, 404),
        ({"model": [models[1], models[1]]}, 400),
        ({"model": models[1], "weight": "0"}, 400),
        ({"model": models[1], "weight": "much"}, 400),
    ):
        assert owner.post(here, {"act": "switch", **form}).status == status, form
    assert _weights(server, alias) == {models[0]: 1}


def test_the_rows_of_a_split_are_kept_while_the_key_is_asked_for(
    server: Server, models: tuple[str, str], alias: str
) -> None:
    key = server.make_key("owner")
    visitor = sign_in_a_while_ago(server, key)
    for act in ("switch", "roll-back", "remove"):
        assert visitor.post(f"{HERE}/{alias}", {"act": act}).status == 403, act
    form = {"act": "switch", "model": [models[0], models[1]], "weight": ["3", "4"]}
    asked = visitor.post(f"{HERE}/{alias}", form)
    assert _weights(server, alias) == {models[0]: 1}
    kept: dict[str, list[str]] = {}
    for name, value in HIDDEN.findall(asked.body.decode()):
        kept.setdefault(name, []).append(html.unescape(value))
    assert visitor.post(f"{HERE}/{alias}", {**kept, "key": key}).status == 303
    assert _weights(server, alias) == {models[0]: 3, models[1]: 4}


def test_who_may_only_read_is_told_who_may_change(
    server: Server, models: tuple[str, str], alias: str
) -> None:
    reader = Visitor(server, server.make_key("reader"))
    for path in (HERE, f"{HERE}/{alias}"):
        page = reader.text(path)
        assert "An Owner of the organization" in page
        assert "<button>" not in page
    assert reader.post(HERE, {"name": "mine", "model": models[0]}).status == 403
    assert reader.post(HERE, {"name": "mine"}).status == 403, "before what was typed is judged"
    assert reader.post(f"{HERE}/{alias}", {"act": "switch"}).status == 403
    assert reader.post(f"{HERE}/{alias}", {"act": "remove"}).status == 403


def test_lists_and_histories_have_pages(
    server: Server, owner: Visitor, models: tuple[str, str], alias: str
) -> None:
    for turn in range(lists.PAGE_ROWS):
        server.post(f"/v1/aliases/{alias}", {"model": models[(turn + 1) % 2]})
    page = owner.text(f"{HERE}/{alias}")
    [older] = re.findall(r'href="([^"]+)" rel="next"', page)
    assert page.count('data-label="Version"') == lists.PAGE_ROWS
    assert owner.text(html.unescape(older)).count('data-label="Version"') == 1
    assert "no older versions" in owner.text(f"{HERE}/{alias}?after=1")
    assert owner.get(f"{HERE}/{alias}?after=first").status == 400

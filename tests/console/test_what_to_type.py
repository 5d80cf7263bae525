"""A wrong confirmation is refused, and the message says what to type."""

import html

import pytest
from tests.support import administration
from tests.support.console import Visitor, hidden, sign_in_a_while_ago
from tests.support.servers import Reply, Server

SELECTED = "/console/delete"
NO_KEY = "type your API key again"
ADMIN_KEY = "This is an admin key. Type the API key that you signed in with."


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return server.make_key("owner")


@pytest.fixture
def visitor(server: Server, key: str) -> Visitor:
    return sign_in_a_while_ago(server, key)


def _said(reply: Reply, status: int) -> str:
    """Return what a page that asks again says."""
    page = html.unescape(reply.body.decode())
    assert reply.status == status, page
    assert page.count('role="alert"') == 1
    return page.partition('role="alert"')[2].partition("</p>")[0]


def test_a_rule_that_deletes_asks_for_the_key_that_was_not_typed(
    server: Server, owner: Visitor, visitor: Visitor
) -> None:
    for _ in range(2):
        server.make_model(suffix="typed")
    form = {"action": "delete", "suffix": "typed", "keep_latest": "1", "notice_days": "0"}
    here = str(owner.post("/console/retention", form).header("location"))
    for act in ("enable", "run"):
        refused = visitor.post(here, {**hidden(visitor.text(here)), "act": act})
        assert NO_KEY in _said(refused, 403)
        assert 'name="key"' in refused.body.decode()
    seen = hidden(owner.text(here))
    assert "Type or paste “delete 1 model” to confirm." in _said(
        owner.post(here, {**seen, "act": "run"}), 400
    )
    assert owner.post(here, {"act": "delete"}).status == 303


def test_an_admin_key_is_refused_at_the_field_and_leaves_the_page_no_more(
    server: Server, visitor: Visitor, key: str
) -> None:
    admin_key, model = administration.make_admin_key(server.app), server.make_model().id
    here = f"/console/models/{model}/delete"
    form = {**hidden(visitor.text(here)), "confirmation": model}
    refused = visitor.post(here, form | {"key": admin_key})
    assert ADMIN_KEY in _said(refused, 403)
    assert admin_key not in refused.body.decode()
    assert NO_KEY in _said(visitor.post(here, form), 403)
    server.post("/v1/aliases", {"name": "steps-up", "model": model})
    removing = {"act": "remove"}
    assert ADMIN_KEY in _said(
        visitor.post("/console/aliases/steps-up", removing | {"key": admin_key}), 403
    )
    assert visitor.post("/console/aliases/steps-up", removing | {"key": key}).status == 303


def test_the_sentence_of_many_is_said_when_nothing_was_typed(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    form = {**hidden(owner.text(f"{SELECTED}?id={model}")), "confirmation": ""}
    assert "Type or paste “delete 1 model” to confirm." in _said(owner.post(SELECTED, form), 400)
    without = _said(owner.post(SELECTED, form | {"sentence": ""}), 400)
    assert "the sentence that stands at the field" in without
    assert "“”" not in without
    other = _said(owner.post(SELECTED, form | {"confirmation": "delete all"}), 400)
    assert "What you typed is not “delete 1 model”." in other
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200


def test_what_is_kept_is_said_in_the_singular(server: Server, owner: Visitor) -> None:
    for _ in range(2):
        server.make_model(suffix="singular")
    form = {"action": "archive", "suffix": "singular", "keep_latest": "1"}
    here = str(owner.post("/console/retention", form).header("location"))
    page = owner.text(here)
    assert "There is 1 newer one with its name." in page
    assert "It is the newest with its name, which is kept." in page
    assert owner.post(here, {"act": "delete"}).status == 303

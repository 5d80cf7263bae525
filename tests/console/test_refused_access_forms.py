"""Refused forms of aliases and of who may do what come back as they were filled in, with why beside the field."""

import html
import re

import pytest
from tests.support import administration
from tests.support.console import Visitor
from tests.support.servers import Reply, Server

WRONG = re.compile(
    r'<(?:input|select) ([^>]*)>(?:(?!<input|<select).)*?<span class="wrong" id="wrong">(.*?)</span>',
    re.DOTALL,
)
ALIASES, ADMIN_KEYS = "/console/aliases", "/console/admin-keys"


@pytest.fixture(scope="module")
def admin(server: Server) -> Visitor:
    visitor = Visitor(server, server.owner_key)
    visitor.administer(administration.make_admin_key(server.app))
    return visitor


@pytest.fixture(scope="module")
def project(server: Server) -> str:
    admin = administration.make_admin_key(server.app)
    return str(administration.ask(server, "POST", "/projects", admin, {"name": "typed"}).json["id"])


def _typed(page: str, name: str) -> list[str]:
    """Return what is in the fields of a name, as they are written."""
    fields = re.findall(rf'<input [^>]*\bname="{name}" value="([^"]*)"', page)
    return [html.unescape(one) for one in fields]


def _wrong(reply: Reply) -> tuple[str, str, str]:
    """Return the page of a refused form, the id of the field that is wrong, and why."""
    page = reply.body.decode()
    assert reply.status in {400, 404, 409}, page
    [(field, why)] = WRONG.findall(page)
    assert page.count('id="wrong"') == 1
    assert 'aria-describedby="wrong"' in field
    [named] = re.findall(r'\bid="([^"]+)"', field)
    return page, named, html.unescape(why)


def test_a_new_alias_comes_back_with_its_rows_and_which_one_is_wrong(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    form = {"name": "kept", "model": [model, "ft:nobody", ""], "weight": ["9", "1", ""]}
    page, field, why = _wrong(owner.post(ALIASES, form))
    assert (_typed(page, "name"), _typed(page, "model"), _typed(page, "weight")) == (
        ["kept"],
        form["model"],
        form["weight"],
    )
    assert (field, "does not exist" in why) == ("model-2", True)
    _, field, why = _wrong(owner.post(ALIASES, form | {"model": [model, model]}))
    assert (field, model in why) == ("model-2", True)
    _, field, why = _wrong(owner.post(ALIASES, form | {"weight": ["9", "0"]}))
    assert (field, "from 1 to" in why) == ("weight-2", True)
    page, field, _ = _wrong(owner.post(ALIASES, form | {"name": "?!", "model": [model]}))
    assert (field, _typed(page, "name")) == ("name", ["?!"])
    _, field, why = _wrong(owner.post(ALIASES, {"name": "kept", "model": "", "weight": ""}))
    assert (field, why) == ("model-1", "Name at least one model.")
    assert _typed(owner.text(ALIASES), "model") == ["", "", ""]


def test_a_switch_that_is_refused_keeps_its_rows(server: Server, owner: Visitor) -> None:
    model = server.make_model().id
    server.post("/v1/aliases", {"name": "keeps", "model": model})
    here = f"{ALIASES}/keeps"
    form = {"act": "switch", "model": [model, "ft:nobody"], "weight": ["7", "much"]}
    page, field, _ = _wrong(owner.post(here, form))
    assert field == "weight-2"
    assert _typed(page, "model")[:2] == form["model"]
    assert _typed(page, "weight")[:2] == form["weight"]
    assert _typed(owner.text(here), "model") == [model, "", ""]
    server.request("DELETE", "/v1/aliases/keeps", key=server.owner_key)


def test_a_new_admin_key_comes_back(server: Server, admin: Visitor) -> None:
    reader = administration.make_user(server.app, "reads")
    form = {"name": "theirs", "user_id": reader, "expires_in_days": "9"}
    page, field, _ = _wrong(admin.post(ADMIN_KEYS, form))
    assert field == "user_id"
    assert [_typed(page, name) for name in form] == [[value] for value in form.values()]
    page, field, why = _wrong(admin.post(ADMIN_KEYS, form | {"expires_in_days": "400"}))
    assert (field, why) == (
        "expires_in_days",
        "'expires in days' must be a whole number from 1 to 365.",
    )


def test_a_member_who_is_nobody_comes_back(admin: Visitor, project: str) -> None:
    here = f"/console/projects/{project}/members"
    for person in ("nobody@example.com", "user-nobody"):
        page, field, _ = _wrong(admin.post(here, {"person": person, "role": "member"}))
        assert (field, _typed(page, "person")) == ("person", [person])
        assert "<option selected>member</option>" in page


def test_a_service_account_its_key_and_a_rotation_come_back(
    server: Server, admin: Visitor, project: str
) -> None:
    here = f"/console/projects/{project}/service-accounts"
    page, field, _ = _wrong(admin.post(here, {"name": "ci", "expires_in_days": "0"}))
    assert (field, _typed(page, "name")) == ("expires_in_days", ["ci"])
    assert admin.post(here, {"name": "ci"}).status == 200
    [account] = re.findall(rf'action="{here}/([^"]+)"', admin.text(here))[:1]
    form = {"act": "create-key", "expires_in_days": "366"}
    page, field, why = _wrong(admin.post(f"{here}/{account}", form))
    assert (field, _typed(page, "expires_in_days")) == (f"days-{account}", ["366", ""])
    assert "seconds" not in why
    listed = f"/console/projects/{project}"
    [key] = re.findall(r'keys/([^"/]+)/rotate"', admin.text(listed))
    page, field, why = _wrong(admin.post(f"{listed}/keys/{key}/rotate", {"overlap_hours": "9000"}))
    assert (field, _typed(page, "overlap_hours")) == (f"overlap-{key}", ["9000"])
    assert why == "'overlap hours' must be a whole number from 1 to 8760."

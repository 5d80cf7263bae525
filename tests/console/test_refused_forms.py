"""A refused form comes back as it was filled in, with why beside its field; no secret does, and nothing was done."""

import re
from urllib.parse import urlencode

import pytest
from tests.support import administration, fine_tuning_rows
from tests.support.console import FORM, Visitor
from tests.support.servers import LOCAL_BASE, Reply, Server

WRONG = re.compile(r'<span class="wrong" id="wrong">(.*?)</span>')


@pytest.fixture(scope="module")
def admin(server: Server) -> Visitor:
    visitor = Visitor(server, server.owner_key)
    visitor.administer(administration.make_admin_key(server.app))
    return visitor


def _send(visitor: Visitor, path: str, *fields: tuple[str, str]) -> Reply:
    """Send a form whose fields may have a name twice."""
    headers = {"cookie": str(visitor.cookie), "sec-fetch-site": "same-origin", "content-type": FORM}
    body = urlencode(fields).encode()
    return visitor.server.request("POST", path, headers=headers, body=body)


def _field(page: str, name: str) -> str:
    """Return the one input of a page with this name, as it is written."""
    [found] = re.findall(rf'<input [^>]*name="{name}"[^>]*>', page)
    return str(found)


def _refused(reply: Reply, status: int = 400) -> str:
    """Return the page of a refused form, which says so first, where the focus is."""
    page = reply.body.decode()
    assert reply.status == status, page
    assert "<title>Not done: " in page
    first = page.partition('<main id="main" tabindex="-1">')[2].lstrip()
    assert first.startswith('<div class="alert" role="alert" tabindex="-1" autofocus>')
    return page


def test_what_was_typed_of_a_rule_comes_back_with_why_beside_its_field(
    server: Server, owner: Visitor
) -> None:
    before = server.get("/v1/retention/rules", key=server.owner_key).json["data"]
    sent = {"action": "delete", "older_than_days": "7 days", "suffix": '<i>"x', "base": ""}
    page = _refused(owner.post("/console/retention", sent))
    assert WRONG.findall(page) == ["&#39;older than days&#39; must be a whole number."]
    assert '<a href="#wrong">Go to the field</a>' in page
    field = _field(page, "older_than_days")
    assert 'value="7 days"' in field
    assert 'aria-invalid="true" aria-describedby="wrong"' in field
    assert 'value="&lt;i&gt;&#34;x"' in _field(page, "suffix")
    assert "<option selected>delete</option>" in page
    assert "aria-invalid" not in _field(page, "suffix")
    # What only the operation itself knows, too.
    unknown = _refused(
        owner.post(
            "/console/retention", sent | {"older_than_days": "9", "base": "b0", "suffix": ""}
        )
    )
    assert WRONG.findall(unknown) == ["There is no base &#39;b0&#39;."]
    assert server.get("/v1/retention/rules", key=server.owner_key).json["data"] == before
    clean = owner.text("/console/retention")
    assert "autofocus" not in clean
    assert "7 days" not in _field(clean, "older_than_days")


def test_boxes_and_an_address_of_an_endpoint_come_back(owner: Visitor) -> None:
    reply = _send(
        owner,
        "/console/webhooks",
        ("name", "ours"),
        ("url", "https://127.0.0.1/hook"),
        ("event_types", "model.deleted"),
        ("event_types", "model.archived"),
    )
    page = _refused(reply)
    assert 'value="https://127.0.0.1/hook"' in _field(page, "url")
    assert WRONG.findall(page)[0].startswith("Invalid webhook URL.")
    ticked = re.findall(r'value="([a-z.]+)" checked', page)
    assert sorted(ticked) == ["model.archived", "model.deleted"]


def test_a_hold_without_a_reason_opens_its_form_again(server: Server, owner: Visitor) -> None:
    here = f"/console/models/{server.make_model().id}"
    page = _refused(owner.post(f"{here}/holds", {"reason": "x" * 5000}))
    assert "<details open>\n<summary>Place a hold" in page
    assert "x" * 5000 in _field(page, "reason")
    nowhere = owner.post("/console/models/ft:nobody/holds", {"reason": "x"})
    assert nowhere.status == 404
    assert "Not done" not in nowhere.body.decode(), "there is no such page to come back to"


def test_only_the_form_that_was_sent_comes_back_and_no_secret(
    server: Server, admin: Visitor
) -> None:
    project, _ = fine_tuning_rows.make_project(server.app)
    here = f"/console/projects/{project}"
    secret = "sk-tw-secret"
    reply = _send(
        admin,
        f"{here}/keys",
        ("user_id", "user-nobody"),
        ("name", "the night shift"),
        ("expires_in_days", "often"),
        ("scopes", "api.all.read"),
        ("key", secret),
    )
    page = _refused(reply)
    assert 'value="the night shift"' in _field(page, "name")
    assert 'value="often"' in _field(page, "expires_in_days")
    assert 'value="api.all.read" checked' in page
    assert secret not in page
    limits = admin.post(
        f"{here}/limits", {"rate_limit": f"rl-{LOCAL_BASE}", "requests": "0", "tokens": "5"}
    )
    page = _refused(limits)
    assert 'value="0"' in _field(page, "requests")
    assert WRONG.findall(page)
    assert 'value=""' in _field(page, "expires_in_days")
    quota = _refused(admin.post(f"{here}/quota", {"bytes": "many", "files": "3"}))
    assert 'value="many"' in _field(quota, "bytes")
    assert 'value="3"' in _field(quota, "files")


def test_a_mistyped_removal_and_invite_come_back(server: Server, admin: Visitor) -> None:
    user = administration.make_user(server.app, "Stays Here")
    page = _refused(
        admin.post(f"/console/people/{user}", {"act": "remove", "confirmation": "them"})
    )
    assert page.count('value="them"') == 1
    assert "not the id of this person" in WRONG.findall(page)[0]
    page = _refused(admin.post("/console/people/invites", {"email": "no address", "role": "owner"}))
    assert 'value="no address"' in _field(page, "email")
    assert "<option selected>owner</option>" in page


def test_the_id_that_was_typed_is_there_after_a_wrong_key_and_not_after_a_change(
    server: Server,
) -> None:
    model, key = server.make_model().id, server.make_key("owner")
    visitor, here = Visitor(server, key), f"/console/models/{model}/delete"
    typed = f'value="{model}">'
    wrong = visitor.post(here, {"confirmation": f"{model}x"})
    assert f'value="{model}x">' in wrong.body.decode()
    changed = visitor.post(here, {"confirmation": model, "fingerprint": "0" * 64})
    assert changed.status == 412
    assert typed not in changed.body.decode().partition('id="confirmation"')[2]
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200


def test_an_alias_that_cannot_be_switched_keeps_what_was_typed(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    server.post("/v1/aliases", {"name": "typed", "model": model})
    then = f"/console/models/{model}/delete"
    reply = owner.post(
        "/console/aliases/typed", {"act": "switch", "model": "ft:nobody", "then": then}
    )
    page = _refused(reply, reply.status)
    assert reply.status in {400, 404}
    assert 'value="ft:nobody"' in _field(page, "model")
    assert "Delete <code" in page, "the page that the form was on"

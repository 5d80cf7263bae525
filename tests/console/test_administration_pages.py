"""Administration at the console: an admin key is shown once, and what it opens ends with it."""

import html
import re

import pytest
from tests.support import administration, fine_tuning_rows
from tests.support.console import Visitor
from tests.support.servers import Server

from tunewarden.identity import key_format
from tunewarden.registry import usage

HERE = "/console/administration"
ADMINISTERED = ("usage", "people", "projects", "audit")


@pytest.fixture
def admin_key(server: Server) -> str:
    return administration.make_admin_key(server.app)


@pytest.fixture
def admin(server: Server, admin_key: str) -> Visitor:
    visitor = Visitor(server, server.owner_key)
    visitor.administer(admin_key)
    return visitor


def test_an_owners_api_key_does_not_administer_and_the_form_leads_back(
    server: Server, admin_key: str
) -> None:
    visitor = Visitor(server, server.owner_key)
    for name in ADMINISTERED:
        reply = visitor.get(f"/console/{name}")
        assert (reply.status, reply.header("location")) == (303, f"{HERE}?next=%2Fconsole%2F{name}")
    assert visitor.post("/console/projects", {"name": "mine"}).status == 403
    for wrong in (server.owner_key, "nothing", ""):
        assert visitor.post(HERE, {"key": wrong, "next": ""}).status == 403
    assert visitor.get("/console/people").status == 303
    reply = visitor.post(HERE, {"key": admin_key, "next": "/console/usage?by=user"})
    assert (reply.status, reply.header("location")) == (303, "/console/usage?by=user")
    assert visitor.get("/console/people").status == 200
    away = visitor.post(HERE, {"key": admin_key, "next": "https://example.com"})
    assert away.header("location") == "/console/people"


def test_an_admin_key_of_another_organization_opens_nothing_here(server: Server) -> None:
    """I9: it is answered as an unknown one."""
    server.make_key("owner", organization="others")
    theirs = administration.make_admin_key(server.app, organization="others")
    visitor = Visitor(server, server.owner_key)
    refused, unknown = (
        visitor.post(HERE, {"key": key, "next": ""}) for key in (theirs, theirs[:-3])
    )
    assert refused.status == unknown.status == 403
    assert visitor.get("/console/people").status == 303


def test_what_an_admin_key_opened_ends_with_it(
    server: Server, admin: Visitor, admin_key: str
) -> None:
    """I19: revoked elsewhere, the next request does not administer; the session itself goes on."""
    assert admin.get("/console/people").status == 200
    other = administration.make_admin_key(server.app)
    path = f"/admin_api_keys/{key_format.present(admin_key).id}"
    assert administration.ask(server, "DELETE", path, other).status == 200
    assert admin.get("/console/people").status == 303
    assert admin.post("/console/projects", {"name": "late"}).status == 403
    assert admin.get("/console/models").status == 200


def test_administering_ends_on_demand(admin: Visitor) -> None:
    assert admin.post(f"{HERE}/end", {}).status == 303
    assert admin.get("/console/people").status == 303


def test_a_key_is_made_shown_once_used_and_revoked(server: Server, admin: Visitor) -> None:
    project, _ = fine_tuning_rows.make_project(server.app)
    here = f"/console/projects/{project}"
    user = fine_tuning_rows.caller_of(server.app, server.owner_key).user_id
    sent = {
        "user_id": user,
        "name": "<b>ours</b>",
        "expires_in_days": "3",
        "scopes": "api.model.read",
    }
    made = admin.post(f"{here}/keys", sent)
    assert (made.status, made.header("cache-control")) == (200, "no-store")
    [text] = re.findall(r"sk-tw-[\w-]+", html.unescape(made.body.decode()))
    assert server.get("/v1/models", key=text).status == 200
    page = admin.text(here)
    assert text not in page
    assert "&lt;b&gt;ours&lt;/b&gt;" in page
    assert "<b>ours" not in page
    [revoke] = re.findall(
        rf'action="({here}/keys/\w+)">\s*<p><button class="danger">Revoke &lt;b', page
    )
    assert admin.post(revoke, {}).status == 303
    assert server.get("/v1/models", key=text).status == 401


def test_limits_and_quota_are_set(server: Server, admin: Visitor) -> None:
    project, _ = fine_tuning_rows.make_project(server.app)
    here = f"/console/projects/{project}"
    [base] = re.findall(r'name="rate_limit" value="(rl-[\w.-]+)"', admin.text(here))[:1]
    sent = {"rate_limit": base, "requests": "7", "tokens": ""}
    assert admin.post(f"{here}/limits", sent).status == 303
    assert admin.post(f"{here}/quota", {"files": "3"}).status == 303
    page = admin.text(here)
    assert '<td data-label="Requests" class="figure">7</td>' in page
    assert "Files (3 now)" in page
    assert admin.post(f"{here}/quota", {"files": "many"}).status == 400


def test_an_invite_is_a_link_that_is_shown_once(server: Server, admin: Visitor) -> None:
    made = admin.post("/console/people/invites", {"email": "new@example.com", "role": "reader"})
    [link] = re.findall(r"<code>(http://[^<]+/invites/\w+)</code>", made.body.decode())
    assert server.get(f"/invites/{link.rpartition('/')[2]}").status == 200
    page = admin.text("/console/people")
    assert "new@example.com" in page
    assert link not in page
    [withdraw] = re.findall(
        r'action="(/console/people/invites/[\w-]+)"><button class="quiet">Withdraw<span'
        r' class="unseen"> new@example',
        page,
    )
    assert admin.post(withdraw, {}).status == 303
    assert server.get(f"/invites/{link.rpartition('/')[2]}").status == 404


def test_a_person_is_removed_only_by_the_typed_id(server: Server, admin: Visitor) -> None:
    key = server.make_key("reader")
    user = fine_tuning_rows.caller_of(server.app, key).user_id
    here = f"/console/people/{user}"
    assert user in admin.text("/console/people")
    assert admin.post(here, {"act": "remove", "confirmation": "user"}).status == 400
    assert server.get("/v1/models", key=key).status == 200
    assert admin.post(here, {"act": "remove", "confirmation": user}).status == 303
    assert server.get("/v1/models", key=key).status == 401
    assert admin.post(here, {"act": "remove", "confirmation": user}).status == 404


def test_usage_is_shown_as_charts_and_by_group(server: Server, admin: Visitor) -> None:
    caller = fine_tuning_rows.caller_of(server.app, server.owner_key)
    who = caller.organization_id, caller.key_id, caller.user_id, caller.project_id
    with server.app.database.write() as tx:
        for model, requests in (("ft:one", 12_000), ("ft:two", 3_000)):
            counts = usage.Counts(requests, requests * 10, 0, requests * 2)
            usage.add(tx, usage.Series(*who, model, usage.COMPLETIONS), counts)
    page = admin.text("/console/usage")
    assert page.count("<svg") == 2
    assert page.count('<rect class="bar series-1"') == 14
    assert page.count('<rect class="bar series-2"') == 7
    assert '<td class="figure">15 k</td>' in page, "the table beside the chart has the sum"
    assert page.index("ft:one") < page.index("ft:two"), "the most requests first"
    assert '<td data-label="Input tokens" class="figure">120,000</td>' in page
    assert caller.user_id in admin.text("/console/usage?span=24+hours&by=user")
    assert "style=" not in admin.text("/console/usage?span=90+days&by=project")


def test_the_audit_log_is_filtered_in_the_address(server: Server, admin: Visitor) -> None:
    user = fine_tuning_rows.caller_of(server.app, server.owner_key).user_id
    page = admin.text("/console/audit?type=login.succeeded")
    assert "by admin_key" in page, "showing the admin key is an event too"
    assert page.count("<tr>") <= 21
    assert f'value="{user}"' in admin.text(f"/console/audit?actor={user}")
    assert "No event is like that" in admin.text("/console/audit?from=2001-01-01&to=2001-01-02")
    assert admin.get("/console/audit?from=yesterday").status == 400

"""Who may do what, at the console: admin keys, members and service accounts of a project, keys that are rotated."""

import html
import re

import pytest
from tests.support import administration
from tests.support import fine_tuning_rows as rows
from tests.support.console import Visitor, hidden, sign_in_a_while_ago
from tests.support.servers import Server, wait_until

from tunewarden.identity import key_format, key_rows
from tunewarden.identity.policy import Role

KEY = re.compile(r"<code>(sk-[\w-]+)</code>")
ADMIN_KEYS = "/console/admin-keys"


@pytest.fixture(scope="module")
def project(server: Server, admin_key: str) -> str:
    """A project of nobody."""
    made = administration.ask(server, "POST", "/projects", admin_key, {"name": "<i>access</i>"})
    return str(made.json["id"])


def _shown_once(admin: Visitor, path: str, form: dict[str, str], *, listed: str) -> str:
    """Send a form that makes a key, and return the key, which the list does not show."""
    made = admin.post(path, form)
    assert (made.status, made.header("cache-control")) == (200, "no-store"), made.body
    text = str(KEY.findall(html.unescape(made.body.decode()))[0])
    page = admin.text(listed)
    assert text not in page
    assert key_format.redacted(key_format.present(text).id) in page
    return text


def test_an_admin_key_is_made_used_and_revoked(server: Server, admin: Visitor) -> None:
    text = _shown_once(
        admin, ADMIN_KEYS, {"name": "ours", "expires_in_days": "9"}, listed=ADMIN_KEYS
    )
    assert administration.ask(server, "GET", "/users", text).status == 200
    key_id = key_format.present(text).id
    assert admin.post(f"{ADMIN_KEYS}/{key_id}", {}).header("location") == ADMIN_KEYS
    assert administration.ask(server, "GET", "/users", text).status == 401
    assert rows.audited(server, key_id)[:2] == ["admin_api_key.created", "admin_api_key.deleted"]
    assert admin.post(f"{ADMIN_KEYS}/{key_id}", {}).status == 404


def test_an_admin_key_of_another_owner_and_of_nobody_who_is_none(
    server: Server, admin: Visitor
) -> None:
    owner = administration.make_user(server.app, "second", role=Role.OWNER)
    reader = administration.make_user(server.app, "reader")
    form = {"name": "theirs", "user_id": owner}
    text = _shown_once(admin, ADMIN_KEYS, form, listed=ADMIN_KEYS)
    assert owner in admin.text(ADMIN_KEYS)
    assert administration.ask(server, "GET", "/users", text).status == 200
    assert admin.post(ADMIN_KEYS, {"name": "theirs", "user_id": reader}).status == 400
    assert admin.post(ADMIN_KEYS, {"name": "theirs", "user_id": "user_nobody"}).status == 404


def test_an_admin_key_that_a_session_administers_with_is_used(server: Server) -> None:
    text = administration.make_admin_key(server.app)
    visitor = Visitor(server, server.owner_key)
    visitor.administer(text)
    key_id = key_format.present(text).id

    def is_noted() -> bool:
        found = visitor.get(f"{ADMIN_KEYS}?format=json").json["data"]
        return [one["last_used_at"] for one in found if one["id"] == key_id] != [None]

    wait_until(is_noted, "its use is counted")


def test_who_revokes_the_sessions_own_admin_key_administers_no_more(server: Server) -> None:
    text = administration.make_admin_key(server.app)
    visitor = Visitor(server, server.owner_key)
    visitor.administer(text)
    assert "this session&#39;s" in visitor.text(ADMIN_KEYS)
    assert visitor.post(f"{ADMIN_KEYS}/{key_format.present(text).id}", {}).status == 303
    assert visitor.get(ADMIN_KEYS).status == 303


def test_a_person_is_added_to_a_project_changed_and_removed(
    server: Server, admin: Visitor, project: str
) -> None:
    here = f"/console/projects/{project}/members"
    assert "tunewarden projects users add" in admin.text(here)
    user = administration.make_user(server.app, "member", email="member@example.com")
    for person, role, status in (
        ("nobody@example.com", "member", 404),
        (user, "king", 400),
        (" Member@Example.com ", "member", 303),
        (user, "member", 409),
    ):
        assert admin.post(here, {"person": person, "role": role}).status == status, person
    page = admin.text(here)
    assert "&lt;i&gt;access&lt;/i&gt;" in page
    assert '<span class="badge badge-member">member</span>' in page
    key = _shown_once(
        admin,
        f"/console/projects/{project}/keys",
        {"user_id": user, "name": "theirs", "scopes": ""},
        listed=f"/console/projects/{project}",
    )
    assert server.get("/v1/files", key=key).status == 200
    one = f"{here}/{user}"
    assert admin.post(one, {"act": "set-role", "role": "viewer"}).header("location") == here
    assert '<span class="badge badge-viewer">viewer</span>' in admin.text(here)
    assert admin.post(one, {"act": "remove"}).header("location") == here
    assert server.get("/v1/files", key=key).status == 403, "from the next request on"
    assert admin.post(one, {"act": "remove"}).status == 404


def test_a_service_account_is_made_with_a_key_gets_another_and_is_deleted(
    server: Server, admin: Visitor, project: str
) -> None:
    here, keys = f"/console/projects/{project}/service-accounts", f"/console/projects/{project}"
    first = _shown_once(admin, here, {"name": "ci", "expires_in_days": "30"}, listed=keys)
    [account] = re.findall(rf'action="{here}/([\w-]+)"', admin.text(here))[:1]
    one = f"{here}/{account}"
    second = _shown_once(admin, one, {"act": "create-key"}, listed=keys)
    assert [server.get("/v1/models", key=key).status for key in (first, second)] == [200, 200]
    assert admin.post(one, {"act": "set-role", "role": "none"}).status == 303
    assert server.get("/v1/models", key=first).status == 403
    assert admin.post(one, {"act": "set-role", "role": "member"}).status == 303
    assert admin.post(one, {"act": "set-role", "role": "reader"}).status == 400
    assert admin.post(one, {"act": "delete"}).header("location") == here
    assert [server.get("/v1/models", key=key).status for key in (first, second)] == [401, 401]
    assert account not in admin.text(here)


def test_a_key_is_rotated_and_the_old_one_ends_after_a_while(
    server: Server, admin: Visitor, project: str
) -> None:
    user = rows.caller_of(server.app, server.owner_key).user_id
    here = f"/console/projects/{project}"
    form = {"user_id": user, "name": "turned", "scopes": "api.all.read"}
    old = _shown_once(admin, f"{here}/keys", form, listed=here)
    path = f"{here}/keys/{key_format.present(old).id}/rotate"
    rotated = admin.post(path, {"overlap_hours": "2"})
    assert "works until" in rotated.body.decode()
    [new] = KEY.findall(rotated.body.decode())
    assert [server.get("/v1/models", key=key).status for key in (old, new)] == [200, 200]
    assert rows.caller_of(server.app, new).scopes == {"api.all.read"}, "what the old one may"
    assert admin.post(path, {"overlap_hours": "soon"}).status == 400
    assert admin.post(f"{here}/keys/key_nobody/rotate", {}).status == 404


def test_a_key_for_single_sign_on_is_not_offered_to_be_rotated(
    server: Server, admin: Visitor, project: str
) -> None:
    user = rows.caller_of(server.app, server.owner_key).user_id
    here = f"/console/projects/{project}"
    form = {"user_id": user, "name": "vouched for"}
    key_id = key_format.present(_shown_once(admin, f"{here}/keys", form, listed=here)).id
    path = f"{here}/keys/{key_id}/rotate"
    assert path in admin.text(here)
    with server.app.database.write() as tx:
        key = key_rows.find(tx, key_id)
        assert key is not None
        key_rows.keep_for_sso(tx, key)
    page = admin.text(here)
    assert path not in page
    assert f'action="{here}/keys/{key_id}"' in page, "it can be revoked"
    assert admin.post(path, {}).status == 400


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (ADMIN_KEYS, {"name": "a"}),
        (f"{ADMIN_KEYS}/adminkey_nobody", {}),
        ("{project}/keys", {"user_id": "user_nobody", "name": "a"}),
        ("{project}/keys/key_nobody", {}),
        ("{project}/keys/key_nobody/rotate", {}),
        ("{project}/members", {"person": "user_nobody", "role": "owner"}),
        ("{project}/members/user_nobody", {"act": "set-role", "role": "owner"}),
        ("{project}/members/user_nobody", {"act": "remove"}),
        ("{project}/service-accounts", {"name": "a"}),
        ("{project}/service-accounts/user_nobody", {"act": "set-role", "role": "member"}),
        ("{project}/service-accounts/user_nobody", {"act": "create-key"}),
        ("{project}/service-accounts/user_nobody", {"act": "delete"}),
        ("/console/people/invites", {"email": "a@example.com", "role": "owner"}),
        ("/console/people/user_nobody", {"act": "set-role", "role": "owner"}),
        ("/console/people/user_nobody", {"act": "remove", "confirmation": "user_nobody"}),
    ],
)
def test_who_decides_who_may_do_what_shows_the_key_again(
    server: Server, admin_key: str, project: str, path: str, form: dict[str, str]
) -> None:
    key = server.make_key("owner")
    visitor = sign_in_a_while_ago(server, key)
    visitor.administer(admin_key)
    where = path.format(project=f"/console/projects/{project}")
    asked = visitor.post(where, form)
    assert asked.status == 403
    assert b'name="key"' in asked.body
    assert hidden(asked.body.decode()) == form, "all that was typed is kept"
    assert visitor.post(where, {**form, "key": key}).status not in {401, 403}


def test_only_who_administers_sees_and_changes_any_of_it(server: Server, project: str) -> None:
    owner = Visitor(server, server.owner_key)
    here = f"/console/projects/{project}"
    for path in (ADMIN_KEYS, f"{here}/members", f"{here}/service-accounts"):
        reply = owner.get(path)
        assert reply.status == 303
        assert "admin key of an Owner" in owner.text(reply.header("location") or "")
        assert owner.post(path, {"name": "mine", "person": "me", "role": "owner"}).status == 403

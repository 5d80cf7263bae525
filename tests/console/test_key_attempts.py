"""A form that makes a key, sent twice, makes one; it says so, and shows the key only the first time."""

import html
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support import administration
from tests.support.console import Visitor, sign_in_a_while_ago
from tests.support.servers import Reply, Server

KEY = re.compile(r"<code>(sk-[\w-]+)</code>")
FORM = '<form method="post" action="{}"[^>]*>(.*?)</form>'
ADMIN_KEYS = "/console/admin-keys"


@pytest.fixture
def project(server: Server, admin_key: str) -> str:
    made = administration.ask(server, "POST", "/projects", admin_key, {"name": "attempts"})
    return str(made.json["id"])


def _attempt(page: str, action: str) -> str:
    """Return the attempt of the page's form that is sent to an address and makes a key."""
    forms = re.findall(FORM.format(re.escape(action)), page, re.DOTALL)
    [found] = [one for form in forms for one in re.findall(r'name="attempt" value="(\w+)"', form)]
    return str(found)


def _shown(reply: Reply) -> list[str]:
    return KEY.findall(html.unescape(reply.body.decode()))


def _check_once(admin: Visitor, page: str, action: str, form: dict[str, str]) -> str:
    """Check that the form of a page, sent again, makes nothing and says so, and return the key that the first made."""
    sent = form | {"attempt": _attempt(admin.text(page), action)}
    made, again = admin.post(action, sent), admin.post(action, sent)
    [key] = _shown(made)
    assert again.status == 409
    text = again.body.decode()
    assert "shown once only" in text
    assert (_shown(again), key in text) == ([], False)
    assert _attempt(text, action) != sent["attempt"], "who means to can make another"
    led = admin.get(action)
    assert (led.status, led.header("location")) == ((303, page) if action != page else (200, None))
    return key


def test_a_key_its_rotation_and_those_of_a_service_account_are_made_once(
    server: Server, admin: Visitor, admin_key: str, project: str
) -> None:
    here = f"/console/projects/{project}"
    user = administration.make_user(server.app, "once")
    member = {"user_id": user, "role": "member"}
    administration.ask(server, "POST", f"/projects/{project}/users", admin_key, member)
    keys = f"/projects/{project}/api_keys"

    def count() -> int:
        return len(administration.ask(server, "GET", keys, admin_key).json["data"])

    _check_once(admin, here, f"{here}/keys", {"user_id": user, "name": "once"})
    assert count() == 1
    [first] = administration.ask(server, "GET", keys, admin_key).json["data"]
    _check_once(admin, here, f"{here}/keys/{first['id']}/rotate", {"overlap_hours": "2"})
    assert count() == 2
    accounts = f"{here}/service-accounts"
    _check_once(admin, accounts, accounts, {"name": "once"})
    assert count() == 3
    [account] = set(re.findall(rf'action="{accounts}/([^"]+)"', admin.text(accounts)))
    _check_once(admin, accounts, f"{accounts}/{account}", {"act": "create-key"})
    assert count() == 4


def test_an_admin_key_is_made_once_even_by_two_clicks_at_the_same_time(
    server: Server, admin: Visitor, admin_key: str
) -> None:
    sent = {"name": "twice", "attempt": _attempt(admin.text(ADMIN_KEYS), ADMIN_KEYS)}
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: admin.post(ADMIN_KEYS, sent), range(4)))
    assert sorted(one.status for one in replies) == [200, 409, 409, 409]
    listed = administration.ask(server, "GET", "/admin_api_keys?limit=100", admin_key).json["data"]
    assert [one["name"] for one in listed].count("twice") == 1
    _check_once(admin, ADMIN_KEYS, ADMIN_KEYS, {"name": "after"})


def test_an_attempt_that_was_refused_has_made_nothing_and_may_be_sent_again(
    server: Server, admin: Visitor
) -> None:
    sent = {"name": "mended", "attempt": _attempt(admin.text(ADMIN_KEYS), ADMIN_KEYS)}
    assert admin.post(ADMIN_KEYS, sent | {"user_id": "user-nobody"}).status == 404
    assert admin.post(ADMIN_KEYS, sent).status == 200


def test_the_attempt_goes_along_while_the_key_is_asked_for(server: Server, admin_key: str) -> None:
    key = server.make_key("owner")
    visitor = sign_in_a_while_ago(server, key)
    visitor.administer(admin_key)
    sent = {"name": "proved", "attempt": _attempt(visitor.text(ADMIN_KEYS), ADMIN_KEYS)}
    asked = visitor.post(ADMIN_KEYS, sent)
    assert asked.status == 403
    assert f'name="attempt" value="{sent["attempt"]}"' in asked.body.decode()
    assert visitor.post(ADMIN_KEYS, sent | {"key": key}).status == 200
    assert visitor.post(ADMIN_KEYS, sent).status == 409


def test_an_attempt_of_another_organization_is_another(server: Server, admin: Visitor) -> None:
    others = Visitor(server, server.make_key("owner", organization="others"))
    others.administer(administration.make_admin_key(server.app, "others"))
    sent = {"name": "ours", "attempt": _attempt(admin.text(ADMIN_KEYS), ADMIN_KEYS)}
    assert admin.post(ADMIN_KEYS, sent).status == 200
    assert others.post(ADMIN_KEYS, sent).status == 200

"""Signing in and out of the console: who gets a session, what it opens, and what ends it, on two workers."""

import json
import re

import pytest
from tests.support.console import Visitor
from tests.support.servers import Server

from tunewarden.app import App
from tunewarden.identity import session_rows
from tunewarden.identity.session_rows import IDLE_MICROS, LIFE_MICROS, LINKS_MAX, SESSIONS_MAX

PAGES = ("/console", "/console/models", "/console/deletions")
# Each is asked often enough that both workers answer.
TIMES = 8


def test_a_browser_is_led_to_the_console_and_there_to_the_sign_in(server: Server) -> None:
    visitor = Visitor(server)
    assert visitor.get("/", {"accept": "text/html"}).header("location") == "/console"
    assert visitor.get("/console").header("location") == "/console/sign-in"
    wanted = visitor.get("/console/models?state=active")
    assert wanted.header("location") == "/console/sign-in?next=%2Fconsole%2Fmodels%3Fstate%3Dactive"
    # No page is told from one that is none.
    assert visitor.get("/console/nothing").status == 303


def test_who_signs_in_again_leaves_the_session_before(server: Server) -> None:
    key = server.make_key("owner")
    visitor, elsewhere = Visitor(server, key), Visitor(server, key)
    before = Visitor(server)
    before.cookie = visitor.cookie
    refused = visitor.post("/console/sign-in", {"key": "x", "next": ""})
    assert refused.status == 401
    assert before.get("/console").status == 200, "who was refused stays signed in"
    assert visitor.post("/console/sign-in", {"key": key, "next": ""}).status == 303
    assert before.get("/console").status == 303
    for one in (visitor, elsewhere):
        assert one.get("/console").status == 200


def test_a_key_signs_in_and_is_led_where_it_wanted(server: Server) -> None:
    visitor = Visitor(server)
    reply = visitor.post(
        "/console/sign-in",
        {"key": f" {server.owner_key}\n", "next": "/console/models?state=active"},
    )
    assert (reply.status, reply.header("location")) == (303, "/console/models?state=active")
    cookie = reply.header("set-cookie")
    assert cookie is not None
    assert re.fullmatch(
        rf"tunewarden-{server.address[1]}=\w{{43}}; Path=/console; HttpOnly; SameSite=Lax", cookie
    )
    assert server.owner_key not in visitor.text("/console")


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/v1/models", "/console\\x", "/console/\n"],
)
def test_signing_in_leads_nowhere_but_to_the_console(server: Server, elsewhere: str) -> None:
    form = {"key": server.owner_key, "next": elsewhere}
    assert Visitor(server).post("/console/sign-in", form).header("location") == "/console"


@pytest.mark.parametrize("kind", ["garbage", "revoked", "admin", "empty"])
def test_a_key_that_is_none_gets_no_session(server: Server, kind: str) -> None:
    keys = {
        "garbage": "sk-tw-x",
        "empty": "",
        "admin": server.owner_key.replace("tw-", "tw-admin-"),
    }
    key = keys.get(kind)
    if key is None:
        key = server.make_key("owner")
        server.revoke_key(key)
    reply = Visitor(server).post("/console/sign-in", {"key": key, "next": ""})
    assert (reply.status, reply.header("set-cookie")) == (401, None)
    assert not key or key not in reply.body.decode()


def test_a_session_opens_no_page_of_the_api(server: Server, owner: Visitor) -> None:
    for path in ("/v1/models", "/v1/organization/users", "/openapi.json"):
        assert owner.get(path).status == 401


def test_a_key_opens_no_page_of_the_console(server: Server) -> None:
    assert server.get("/console/models", key=server.owner_key).status == 303


@pytest.mark.parametrize("ending", ["sign out", "revoked", "idle", "old", "clock", "expired"])
def test_a_session_ends_at_once_on_each_worker(server: Server, ending: str) -> None:
    app, key = server.app, server.make_key("owner")
    visitor, other = Visitor(server, key), Visitor(server, server.owner_key)
    assert {visitor.get(PAGES[n % 3]).status for n in range(TIMES)} == {200}
    if ending == "sign out":
        assert visitor.post("/console/sign-out", {}).header("location") == "/console/sign-in"
    elif ending == "revoked":
        server.revoke_key(key)
    else:
        _age(app, key, ending)
    cookie = visitor.cookie
    for n in range(TIMES):
        reply = visitor.get(PAGES[n % 3], {"cookie": cookie or ""})
        assert (reply.status, (reply.header("location") or "")[:16]) == (303, "/console/sign-in")
    posted = visitor.post("/console/sign-out", {}, {"cookie": cookie or ""})
    assert posted.status == 401
    assert other.get("/console").status == 200


def _age(app: App, key: str, how: str) -> None:
    """Set the times of a key's sessions, or let the key expire."""
    key_id = f"key_{key.split('-')[2]}"
    changes = {
        "idle": f"last_seen_at = last_seen_at - {IDLE_MICROS}",
        "old": f"created_at = created_at - {LIFE_MICROS}",
        "clock": "created_at = created_at + 3600000000",
    }
    with app.database.write() as tx:
        if how == "expired":
            tx.run("UPDATE api_keys SET expires_at = 1 WHERE id = :id", id=key_id)
        else:
            assert tx.run(f"UPDATE sessions SET {changes[how]} WHERE key_id = :id", id=key_id) == 1


def test_what_a_session_may_do_is_what_its_user_may_do_now(server: Server) -> None:
    """A demoted Owner sees the page of a deletion no more, with the session that saw it before (I19)."""
    model = server.make_model().id
    key = server.make_key("owner")
    visitor = Visitor(server, key)
    page = f"/console/models/{model}/delete"
    assert {visitor.get(page).status for _ in range(TIMES)} == {200}
    app = server.app
    with app.database.write() as tx:
        user = tx.row("SELECT user_id FROM api_keys WHERE id = :id", id=f"key_{key.split('-')[2]}")
        assert user is not None
        tx.run("UPDATE users SET role = 'reader' WHERE id = :id", id=user[0])
    try:
        assert {visitor.get(page).status for _ in range(TIMES)} == {403}
        assert visitor.get("/console/models").status == 200
    finally:
        with app.database.write() as tx:
            tx.run("UPDATE users SET role = 'owner' WHERE id = :id", id=user[0])


def test_a_key_has_a_bounded_number_of_sessions_and_the_oldest_goes(server: Server) -> None:
    key = server.make_key("owner")
    visitors = [Visitor(server, key) for _ in range(SESSIONS_MAX + 1)]
    assert [one.get("/console").status for one in visitors] == [303] + [200] * SESSIONS_MAX


def test_a_link_signs_in_once_and_looking_at_it_uses_nothing_up(server: Server) -> None:
    link = server.post("/v1/console/links", {}).json["url"]
    address = f"http://{'{}:{}'.format(*server.address)}"
    assert link.startswith(f"{address}/console/links/")
    path = link.removeprefix(address)
    visitor = Visitor(server)
    assert [visitor.get(path).status for _ in range(3)] == [200] * 3
    assert visitor.post(path, {}).header("location") == "/console"
    assert visitor.get("/console/models").status == 200
    assert visitor.get(path).status == 401
    assert Visitor(server).post(path, {}).status == 401


def test_the_command_prints_a_link_that_signs_in(server: Server) -> None:
    printed = server.cli("console", "link").stdout.strip()
    path = "/" + printed.partition("://")[2].partition("/")[2]
    visitor = Visitor(server)
    assert visitor.post(path, {}).status == 303
    assert visitor.get("/console/models").status == 200
    shown = json.loads(server.cli("console", "link", "--json").stdout)
    assert shown.keys() == {"object", "url", "expires_at"}


def test_a_link_is_of_its_key_and_lasts_ten_minutes(server: Server) -> None:
    key = server.make_key("owner")
    paths = [
        server.post("/v1/console/links", {}, key=key).json["url"].partition("/console")
        for _ in range(LINKS_MAX + 1)
    ]
    first, *_, last = ["".join(one[1:]) for one in paths]
    assert Visitor(server).get(first).status == 401  # more than there may be
    with server.app.database.write() as tx:
        assert session_rows.key_of_link(tx, last.rpartition("/")[2])
        tx.run("UPDATE sign_in_links SET expires_at = :now", now=tx.now_micros)
    assert Visitor(server).post(last, {}).status == 401
    again = server.post("/v1/console/links", {}, key=key).json["url"]
    server.revoke_key(key)
    assert Visitor(server).post(f"/console{again.partition('/console')[2]}", {}).status == 401


def test_who_signs_in_and_out_is_in_the_audit_log_and_no_secret_is(server: Server) -> None:
    key = server.make_key("owner")
    visitor = Visitor(server, key)
    assert visitor.cookie is not None
    secret = visitor.cookie.partition("=")[2]
    visitor.post("/console/sign-out", {})
    with server.app.database.read() as tx:
        rows = tx.rows(
            "SELECT type, details, resource_id FROM audit_events WHERE actor_key_id = :key ORDER BY n",
            key=f"key_{key.split('-')[2]}",
        )
        stored = tx.rows("SELECT secret_sha256 FROM sessions")
    assert [row[:2] for row in rows] == [
        ("login.succeeded", '{"by": "key"}'),
        ("logout.succeeded", "{}"),
    ]
    assert not any(secret in str(value) for row in [*rows, *stored] for value in row)


def test_a_wrong_secret_of_a_known_key_is_in_the_audit_log(server: Server) -> None:
    key = server.make_key("owner")
    server.revoke_key(key)
    Visitor(server).post("/console/sign-in", {"key": key})
    with server.app.database.read() as tx:
        row = tx.row(
            "SELECT type, details FROM audit_events WHERE actor_key_id = :key ORDER BY n DESC",
            key=f"key_{key.split('-')[2]}",
        )
    assert row is not None
    assert row[0] == "request.refused"
    assert "POST /console/sign-in" in row[1]

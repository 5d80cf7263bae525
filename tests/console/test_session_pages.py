"""One's own sessions at the console: listed, and ended one by one or all others."""

import re

import pytest
from tests.support import administration
from tests.support import fine_tuning_rows as rows
from tests.support.console import Visitor
from tests.support.servers import Server

from tunewarden.identity.policy import Role
from tunewarden.identity.session_rows import SESSIONS_MAX

HERE = "/console/sessions"
SESSION = re.compile(r'<code class="id">(sess[\w-]+)</code>')


@pytest.fixture
def user(server: Server) -> str:
    """Somebody new."""
    return administration.make_user(server.app, "somebody", role=Role.OWNER)


@pytest.fixture
def key(server: Server, user: str) -> str:
    return _key_of(server, user)


def _key_of(server: Server, user: str, *scopes: str) -> str:
    admin = administration.make_admin_key(server.app)
    project = rows.caller_of(server.app, server.owner_key).project_id
    fields = {"user_id": user, "name": "one of several", "scopes": scopes}
    made = administration.ask(server, "POST", f"/projects/{project}/api_keys", admin, fields)
    return str(made.json["value"])


def _opened(server: Server, key: str) -> Visitor:
    link = server.post("/v1/console/links", {}, key=key).json["url"]
    visitor = Visitor(server)
    assert visitor.post(link[link.index("/console") :], {}).status == 303
    return visitor


def test_sessions_of_a_person_are_listed_with_how_each_began(
    server: Server, user: str, key: str
) -> None:
    first, second = Visitor(server, key), Visitor(server, _key_of(server, user))
    linked = _opened(server, key)
    first.administer(administration.make_admin_key(server.app))
    page = linked.text(HERE)
    assert len(SESSION.findall(page)) == 3
    assert re.findall(r'data-label="By">([^<]+)<', page) == ["link", "key", "key"]
    assert page.count(">this one<") == page.count(">administers<") == 1
    assert page.index(">this one<") < page.index(">administers<"), "the newest first"
    assert f'href="{HERE}"' in second.text("/console"), "every page leads there"
    assert not set(SESSION.findall(page)) & set(
        SESSION.findall(Visitor(server, server.owner_key).text(HERE))
    )


def test_one_is_ended_at_once_and_its_end_is_in_the_audit_log(server: Server, key: str) -> None:
    here, there = Visitor(server, key), Visitor(server, key)
    newest, _ = SESSION.findall(here.text(HERE))
    assert here.post(f"{HERE}/{newest}", {}).header("location") == HERE
    assert there.get("/console/models").status == 303
    assert SESSION.findall(here.text(HERE)) != []
    assert rows.audited(server, newest) == ["login.succeeded", "logout.succeeded"]
    assert here.post(f"{HERE}/{newest}", {}).status == 404


def test_all_others_are_ended_with_the_links_that_were_not_opened(
    server: Server, user: str, key: str
) -> None:
    here = Visitor(server, key)
    others = [Visitor(server, key), Visitor(server, _key_of(server, user))]
    stranger = Visitor(server, server.make_key("reader"))
    link = server.post("/v1/console/links", {}, key=key).json["url"]
    assert here.post(HERE, {"act": "nothing"}).status == 400
    assert here.post(HERE, {"act": "end-others"}).status == 303
    assert [one.get("/console").status for one in (here, *others)] == [200, 303, 303]
    assert stranger.get("/console").status == 200
    assert Visitor(server).post(link[link.index("/console") :], {}).status == 401


def test_a_session_of_somebody_else_is_as_one_that_never_was(server: Server, key: str) -> None:
    here = Visitor(server, key)
    [own] = SESSION.findall(here.text(HERE))
    other = Visitor(server, server.make_key("owner"))
    refused, unknown = (other.post(f"{HERE}/{one}", {}) for one in (own, f"{own[:-4]}aaaa"))
    assert refused.status == unknown.status == 404
    assert refused.body.replace(own.encode(), b"") == unknown.body.replace(
        f"{own[:-4]}aaaa".encode(), b""
    )
    assert here.get(HERE).status == 200


def test_a_restricted_key_reaches_its_own_sessions_only(
    server: Server, user: str, key: str
) -> None:
    whole = Visitor(server, key)
    restricted = Visitor(server, _key_of(server, user, "api.all.read"))
    page = restricted.text(HERE)
    assert len(SESSION.findall(page)) == 1
    assert "Sessions of the key that you signed in with" in page
    assert restricted.post(HERE, {"act": "end-others"}).status == 303
    assert len(SESSION.findall(whole.text(HERE))) == 2


def test_more_sessions_than_a_page_are_all_ended(server: Server, user: str) -> None:
    made = [_key_of(server, user) for _ in range(2)]
    here = Visitor(server, made[0])
    others = [Visitor(server, made[place % 2]) for place in range(SESSIONS_MAX + 4)]
    page = here.text(HERE)
    assert 'rel="next"' in page
    assert here.post(HERE, {"act": "end-others"}).status == 303
    assert {one.get("/console").status for one in others} == {303}
    assert len(SESSION.findall(here.text(HERE))) == 1

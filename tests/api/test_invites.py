"""Invites: made by the stock SDK, opened as a page without scripts, accepted once."""

import http.client
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from itertools import count
from typing import Any
from urllib.parse import urlencode, urlsplit

import openai
import pytest
from openai import OpenAI
from tests.support import administration
from tests.support.administration import make_user
from tests.support.servers import Reply, Server

from tunewarden.api import page_rate
from tunewarden.identity import invites
from tunewarden.identity.policy import Role

FORM = {"content-type": "application/x-www-form-urlencoded"}
AT_ONCE = 8
_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"invites-{next(_numbers)}"


@pytest.fixture
def admin(server: Server, organization: str) -> Iterator[OpenAI]:
    key = administration.make_admin_key(server.app, organization)
    with administration.client(server, key) as client:
        yield client


def _link(invite: Any) -> str:
    """The path of the link, which only the answer that creates an invite has."""
    path = urlsplit(str(invite.model_extra["link"])).path
    assert re.fullmatch("/invites/[A-Za-z0-9]{67}", path)
    return path


def _open(server: Server, path: str) -> Reply:
    return server.request("GET", path)


def _accept(server: Server, path: str, name: str = "Ada Lovelace") -> Reply:
    body = urlencode({"name": name}).encode()
    return server.request("POST", path, headers=FORM, body=body)


def _key_on(page: Reply) -> str:
    found = re.search(r"sk-tw-[A-Za-z0-9-]+", page.body.decode())
    assert found is not None
    return found[0]


@pytest.fixture(autouse=True)
def _unhurried() -> Iterator[None]:
    """The pages of links answer so many a second only: leave the next test its share."""
    yield
    time.sleep(0.3)


def test_an_invite_is_made_listed_and_withdrawn(admin: OpenAI) -> None:
    resource = admin.admin.organization.invites
    made = [resource.create(email=f"u{n}@example.com", role="reader") for n in range(5)]
    assert (made[0].status, made[0].email) == ("pending", "u0@example.com")
    assert made[0].expires_at == made[0].created_at + invites.LIFE_SECONDS
    assert made[0].model_extra is not None
    assert made[0].model_extra["mail"] == {"status": "not_configured", "reason": None}
    (default,) = admin.admin.organization.projects.list()
    assert [(one.id, one.role) for one in made[0].projects] == [(default.id, "member")]
    assert [one.id for one in resource.list(limit=2)] == [one.id for one in made[::-1]]
    shown = resource.retrieve(made[0].id)
    assert {"link", "mail"}.isdisjoint(shown.model_extra or {})
    gone = resource.delete(made[0].id)
    assert (gone.id, gone.deleted, gone.object) == (
        made[0].id,
        True,
        "organization.invite.deleted",
    )
    with pytest.raises(openai.NotFoundError):
        resource.retrieve(made[0].id)


def test_the_page_of_a_link_works_without_scripts_and_makes_a_user_once(
    server: Server, admin: OpenAI, organization: str
) -> None:
    resource = admin.admin.organization
    support = resource.projects.create(name="support").id
    invite = resource.invites.create(
        email=" Ada@Example.COM ", role="reader", projects=[{"id": support, "role": "member"}]
    )
    path = _link(invite)
    for _ in range(2):  # opening it, as scanners of mail do, changes nothing
        page = _open(server, path)
        assert page.status == 200
        assert organization in page.body.decode()
    assert '<form method="post">' in page.body.decode()
    assert "<script" not in page.body.decode()
    headers = dict(page.headers)
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    welcome = _accept(server, path, "Ada <b>Lovelace</b>")
    assert welcome.status == 200
    assert "Ada &lt;b&gt;Lovelace&lt;/b&gt; is now a user" in welcome.body.decode()
    assert dict(welcome.headers)["cache-control"] == "no-store"
    key = _key_on(welcome)
    file = server.client(key).files.create(file=("a.txt", b"x"), purpose="user_data")
    assert file.filename == "a.txt"
    (user,) = resource.users.list(emails=["ada@example.com"])
    assert (user.name, user.role) == ("Ada <b>Lovelace</b>", "reader")
    assert [(one.id, one.role) for one in resource.projects.users.list(support)] == [
        (user.id, "member")
    ]
    accepted = resource.invites.retrieve(invite.id)
    assert accepted.status == "accepted"
    assert accepted.accepted_at is not None
    assert [_open(server, path).status, _accept(server, path).status] == [404, 404]
    with pytest.raises(openai.ConflictError) as refused:
        resource.invites.delete(invite.id)
    assert refused.value.code == "invite_accepted"


def test_a_program_accepts_with_json(server: Server, admin: OpenAI, organization: str) -> None:
    invite = admin.admin.organization.invites.create(
        email="bob@example.com", role="owner", projects=[]
    )
    assert invite.projects == []
    reply = server.post(_link(invite), {"name": "Bob"})
    assert reply.status == 200
    answer = reply.json
    assert (answer["object"], answer["organization"]) == (
        "organization.invite.accepted",
        organization,
    )
    # An Owner needs no project to have a key.
    assert server.client(str(answer["api_key"])).models.list().object == "list"
    reader = admin.admin.organization.invites.create(
        email="eve@example.com", role="reader", projects=[]
    )
    made = server.post(_link(reader), {"name": "Eve"}).json
    assert (made["project_id"], made["api_key"]) == (None, None)


@pytest.mark.parametrize(
    "address",
    [
        "nobody",
        "a@b@example.com",
        "a@example.com\nBcc: victims@example.com",
        "a@example.com\r\n",
        "a@example.com, b@example.com",
        "Ada <ada@example.com>",
        "ä@example.com",
        "a@exämple.com",
        "a b@example.com",
        "@example.com",
        "a@",
        "a@-example.com",
        "a..b@example.com",
        f"{'a' * 65}@example.com",
        f"a@{'b' * 63}.{'c' * 63}.{'d' * 63}.{'e' * 63}",
        "a@example.com%0aBcc:x",
        "\u212a@example.com",  # KELVIN SIGN, whose lower case is k
        "",
    ],
)
def test_what_is_no_address_is_refused(admin: OpenAI, address: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        admin.admin.organization.invites.create(email=address, role="reader")
    assert refused.value.param == "email"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"role": "king"}, 400, "role"),
        ({"role": None}, 400, "role"),
        ({"projects": "all"}, 400, "projects"),
        ({"projects": [{"id": "proj_nobody", "role": "member"}]}, 404, "project_id"),
        ({"projects": [{"id": "proj_nobody", "role": "viewer"}]}, 400, "role"),
        ({"projects": [{"role": "member"}]}, 400, "id"),
        ({"projects": [{"id": "proj_nobody", "role": "member"}] * 2}, 400, "projects"),
        ({"note": "hello"}, 400, "note"),
    ],
)
def test_what_an_invite_cannot_be_is_refused(
    admin: OpenAI, fields: dict[str, object], status: int, param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        admin.admin.organization.invites.create(
            email="a@example.com", role="reader", extra_body=fields
        )
    assert (refused.value.status_code, refused.value.param) == (status, param)


def test_an_address_is_invited_once_and_no_users(
    server: Server, admin: OpenAI, organization: str
) -> None:
    resource = admin.admin.organization.invites
    make_user(server.app, "ada", email="ada@example.com", organization=organization)
    first = resource.create(email="bob@example.com", role="reader")
    for address, code in (
        ("ADA@example.com", "already_a_user"),
        ("Bob@example.com", "already_invited"),
    ):
        with pytest.raises(openai.ConflictError) as refused:
            resource.create(email=address, role="reader")
        assert refused.value.code == code
    resource.delete(first.id)
    assert resource.create(email="bob@example.com", role="reader").status == "pending"


def test_who_became_a_user_otherwise_cannot_accept(
    server: Server, admin: OpenAI, organization: str
) -> None:
    path = _link(admin.admin.organization.invites.create(email="a@example.com", role="owner"))
    make_user(server.app, "ada", email="a@example.com", organization=organization)
    assert _accept(server, path).status == 409
    assert len(list(admin.admin.organization.users.list(emails=["a@example.com"]))) == 1


def test_an_expired_invite_says_so_and_its_link_does_nothing(server: Server, admin: OpenAI) -> None:
    resource = admin.admin.organization.invites
    invite = resource.create(email="late@example.com", role="reader")
    with server.app.database.write() as tx:
        tx.run(
            "UPDATE invites SET expires_at = :now WHERE id = :id", now=tx.now_micros, id=invite.id
        )
    assert resource.retrieve(invite.id).status == "expired"
    assert [_open(server, _link(invite)).status, _accept(server, _link(invite)).status] == [404] * 2
    # The address can be invited again.
    assert resource.create(email="late@example.com", role="reader").status == "pending"
    assert resource.delete(invite.id).deleted


def test_every_link_that_does_nothing_gets_the_same_answer(server: Server, admin: OpenAI) -> None:
    resource = admin.admin.organization.invites
    used, withdrawn, wrong = (
        _link(resource.create(email=f"{name}@example.com", role="reader"))
        for name in ("used", "withdrawn", "wrong")
    )
    _accept(server, used)
    resource.delete(resource.list().data[1].id)
    last = "a" if wrong[-1] != "a" else "b"
    paths = [used, withdrawn, wrong[:-1] + last, "/invites/x", f"/invites/{'x' * 67}"]
    answers = {(reply.status, reply.body) for reply in (_open(server, path) for path in paths)}
    assert len(answers) == 1
    assert next(iter(answers))[0] == 404
    assert _open(server, wrong).status == 200  # the control


def test_events_of_an_acceptance_have_the_request_id_of_its_answer(
    server: Server, admin: OpenAI
) -> None:
    invite = admin.admin.organization.invites.create(email="a@example.com", role="reader")
    reply = _accept(server, _link(invite))
    for kind in ("invite.accepted", "user.added", "role.assignment.created", "api_key.created"):
        newest = admin.admin.organization.audit_logs.list(event_types=[kind]).data[0]
        assert newest.model_extra is not None
        assert newest.model_extra["request_id"] == reply.header("x-request-id"), kind


def test_the_key_is_of_the_first_project_that_is_not_archived(
    server: Server, admin: OpenAI
) -> None:
    resource = admin.admin.organization
    gone, left = (resource.projects.create(name=name).id for name in ("gone", "left"))
    path, dead = (
        _link(
            resource.invites.create(
                email=f"{len(named)}@example.com",
                role="reader",
                projects=[{"id": one, "role": "member"} for one in named],
            )
        )
        for named in ((gone, left), (gone,))
    )
    resource.projects.archive(gone)
    made = server.post(path, {"name": "Ada"}).json
    assert made["project_id"] == left
    assert server.client(str(made["api_key"])).models.list().object == "list"
    assert list(resource.projects.users.list(gone)) == []
    refused = server.post(dead, {"name": "Bob"})
    assert (refused.status, refused.error["code"]) == (409, "project_archived")
    assert "was archived" in _accept(server, dead).body.decode()
    assert _open(server, dead).status == 200, "it is not spent"
    assert list(resource.users.list(emails=["1@example.com"])) == []


def test_a_form_with_too_many_fields_is_told_so(server: Server, admin: OpenAI) -> None:
    path = _link(admin.admin.organization.invites.create(email="a@example.com", role="reader"))
    for body, said in ((b"name=Ada" + b"&x=1" * 8, "more than 8 fields"), (b"name=%ff", "UTF-8")):
        reply = server.request("POST", path, headers=FORM, body=body)
        assert reply.status == 400
        assert said in reply.body.decode()


@pytest.mark.parametrize("how", ["demoted", "removed"])
def test_what_an_owner_invited_is_withdrawn_with_the_owner(
    server: Server, admin: OpenAI, organization: str, how: str
) -> None:
    app, users = server.app, admin.admin.organization.users
    leaving = make_user(app, "leaving", role=Role.OWNER, organization=organization)
    key = administration.make_admin_key(app, organization, user_id=leaving)
    with administration.client(server, key) as theirs:
        invite = theirs.admin.organization.invites.create(email="me@home.example", role="owner")
    assert _open(server, _link(invite)).status == 200
    if how == "demoted":
        users.update(leaving, role="reader")
    else:
        users.delete(leaving)
    assert _accept(server, _link(invite)).status == 404
    with pytest.raises(openai.NotFoundError):
        admin.admin.organization.invites.retrieve(invite.id)


def test_the_address_of_an_accepted_invite_goes_with_its_user(
    server: Server, admin: OpenAI
) -> None:
    resource = admin.admin.organization
    invite = resource.invites.create(email="forget.me@example.com", role="reader")
    _accept(server, _link(invite))
    (user,) = resource.users.list(emails=["forget.me@example.com"])
    resource.users.delete(user.id)
    with pytest.raises(openai.NotFoundError):
        resource.invites.retrieve(invite.id)
    left = "SELECT COUNT(*) FROM invites WHERE email = 'forget.me@example.com'"
    assert server.app.database.peek(left) == (0,)


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\nb", "\u202egnp"])
def test_a_name_that_is_none_is_refused_and_the_link_stays(
    server: Server, admin: OpenAI, name: str
) -> None:
    path = _link(admin.admin.organization.invites.create(email="a@example.com", role="reader"))
    assert _accept(server, path, name).status == 400
    assert server.post(path, {"name": name}).error["param"] == "name"
    assert _open(server, path).status == 200


def test_a_link_that_is_accepted_many_times_at_once_makes_one_user(
    server: Server, admin: OpenAI
) -> None:
    path = _link(admin.admin.organization.invites.create(email="a@example.com", role="reader"))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(lambda _: _accept(server, path), range(AT_ONCE)))
    assert sorted(reply.status for reply in replies) == [200] + [404] * (AT_ONCE - 1)
    assert len(list(admin.admin.organization.users.list(emails=["a@example.com"]))) == 1


def test_neither_log_nor_rows_have_a_links_token_or_an_events_address(
    server: Server, admin: OpenAI
) -> None:
    invite = admin.admin.organization.invites.create(email="quiet@example.com", role="reader")
    path = _link(invite)
    _open(server, path)
    _accept(server, path, "Quiet Name")
    secret = path[-43:]
    assert secret not in server.log() + server.printed()
    files = [one for one in server.data.rglob("*") if one.is_file()]
    assert not any(secret.encode() in one.read_bytes() for one in files)
    with server.app.database.read() as tx:
        told = str(tx.rows("SELECT * FROM audit_events"))
    assert invite.id in told
    assert "invite.accepted" in told
    assert "quiet" not in told
    assert "Quiet" not in told


def test_a_page_is_html_and_says_nothing_that_was_not_escaped(server: Server) -> None:
    page = unescape(_open(server, "/invites/nothing").body.decode())
    assert "This link is not valid" in page
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("HEAD", "/invites/nothing")
    assert connection.getresponse().status == 404
    connection.close()


def test_pages_are_answered_so_many_a_second_only(server: Server) -> None:
    """Last: the others need their share. Two workers have a bound each."""
    sent = int(4 * page_rate.BURST)
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(lambda _: _open(server, "/invites/nothing"), range(sent)))
    seconds = time.monotonic() - began
    answered = sum(reply.status == 404 for reply in replies)
    refused = [reply for reply in replies if reply.status == 429]
    print(f"{sent} requests in {seconds:.2f} s: {answered} answered, {len(refused)} refused")
    assert answered + len(refused) == sent
    assert answered <= 2 * (page_rate.BURST + page_rate.PER_SECOND * (seconds + 1))
    assert refused
    assert dict(refused[0].headers)["retry-after"] == "1"
    time.sleep(2)
    assert _open(server, "/invites/nothing").status == 404

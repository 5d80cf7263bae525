"""Links of invites: pages without scripts, which make a user once."""

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from itertools import count

import openai
import pytest
from openai import OpenAI
from tests.support import administration, links
from tests.support.servers import Server

from tunewarden.api import page_rate

AT_ONCE = 8


_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"invite-pages-{next(_numbers)}"


@pytest.fixture
def admin(server: Server, organization: str) -> Iterator[OpenAI]:
    key = administration.make_admin_key(server.app, organization)
    with administration.client(server, key) as client:
        yield client


@pytest.fixture(autouse=True)
def _unhurried() -> Iterator[None]:
    """The pages of links answer so many a second only: leave the next test its share."""
    yield
    time.sleep(0.3)


def test_the_page_of_a_link_works_without_scripts_and_makes_a_user_once(
    server: Server, admin: OpenAI, organization: str
) -> None:
    resource = admin.admin.organization
    support = resource.projects.create(name="support").id
    invite = resource.invites.create(
        email=" Ada@Example.COM ", role="reader", projects=[{"id": support, "role": "member"}]
    )
    path = links.of(invite)
    for _ in range(2):  # opening it, as scanners of mail do, changes nothing
        page = links.opened(server, path)
        assert page.status == 200
        assert organization in page.body.decode()
    assert '<form method="post">' in page.body.decode()
    assert "<script" not in page.body.decode()
    headers = dict(page.headers)
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    welcome = links.accepted(server, path, "Ada <b>Lovelace</b>")
    assert welcome.status == 200
    assert "Ada &lt;b&gt;Lovelace&lt;/b&gt; is now a user" in welcome.body.decode()
    assert dict(welcome.headers)["cache-control"] == "no-store"
    key = links.key_on(welcome)
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
    assert [links.opened(server, path).status, links.accepted(server, path).status] == [404, 404]
    with pytest.raises(openai.ConflictError) as refused:
        resource.invites.delete(invite.id)
    assert refused.value.code == "invite_accepted"


def test_every_link_that_does_nothing_gets_the_same_answer(server: Server, admin: OpenAI) -> None:
    resource = admin.admin.organization.invites
    used, withdrawn, wrong = (
        links.of(resource.create(email=f"{name}@example.com", role="reader"))
        for name in ("used", "withdrawn", "wrong")
    )
    links.accepted(server, used)
    resource.delete(resource.list().data[1].id)
    last = "a" if wrong[-1] != "a" else "b"
    paths = [used, withdrawn, wrong[:-1] + last, "/invites/x", f"/invites/{'x' * 67}"]
    answers = {
        (reply.status, reply.body) for reply in (links.opened(server, path) for path in paths)
    }
    assert len(answers) == 1
    assert next(iter(answers))[0] == 404
    assert links.opened(server, wrong).status == 200  # the control


def test_a_form_with_too_many_fields_is_told_so(server: Server, admin: OpenAI) -> None:
    path = links.of(admin.admin.organization.invites.create(email="a@example.com", role="reader"))
    for body, said in ((b"name=Ada" + b"&x=1" * 8, "more than 8 fields"), (b"name=%ff", "UTF-8")):
        reply = server.request("POST", path, headers=links.FORM, body=body)
        assert reply.status == 400
        assert said in reply.body.decode()


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\nb", "\u202egnp"])
def test_a_name_that_is_none_is_refused_and_the_link_stays(
    server: Server, admin: OpenAI, name: str
) -> None:
    path = links.of(admin.admin.organization.invites.create(email="a@example.com", role="reader"))
    assert links.accepted(server, path, name).status == 400
    assert server.post(path, {"name": name}).error["param"] == "name"
    assert links.opened(server, path).status == 200


def test_a_link_that_is_accepted_many_times_at_once_makes_one_user(
    server: Server, admin: OpenAI
) -> None:
    path = links.of(admin.admin.organization.invites.create(email="a@example.com", role="reader"))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(lambda _: links.accepted(server, path), range(AT_ONCE)))
    assert sorted(reply.status for reply in replies) == [200] + [404] * (AT_ONCE - 1)
    assert len(list(admin.admin.organization.users.list(emails=["a@example.com"]))) == 1


def test_a_page_is_html_and_says_nothing_that_was_not_escaped(server: Server) -> None:
    page = unescape(links.opened(server, "/invites/nothing").body.decode())
    assert "This link is not valid" in page
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("HEAD", "/invites/nothing")
    assert connection.getresponse().status == 404
    connection.close()


def test_links_that_do_nothing_are_answered_so_many_a_second_and_a_valid_one_always(
    server: Server, admin: OpenAI
) -> None:
    """Last: the others need their share. Two workers have a bound each."""
    path = links.of(admin.admin.organization.invites.create(email="a@example.com", role="reader"))
    sent = int(4 * page_rate.BURST)
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(lambda _: links.opened(server, "/invites/nothing"), range(sent)))
    seconds = time.monotonic() - began
    answered = sum(reply.status == 404 for reply in replies)
    refused = [reply for reply in replies if reply.status == 429]
    print(f"{sent} requests in {seconds:.2f} s: {answered} answered, {len(refused)} refused")
    assert answered + len(refused) == sent
    assert answered <= 2 * (page_rate.BURST + page_rate.PER_SECOND * (seconds + 1))
    assert refused
    assert dict(refused[0].headers)["retry-after"] == "1"
    statuses = {links.opened(server, path).status for _ in range(sent)}
    assert statuses == {200}, "a guesser stops nobody who was invited"
    assert {server.post("/invites/nothing", {"name": 1}).status for _ in range(sent)} >= {429}
    assert links.accepted(server, path).status == 200
    time.sleep(2)
    assert links.opened(server, "/invites/nothing").status == 404


def test_no_link_is_a_server_error_whatever_is_in_it(server: Server) -> None:
    headers = {
        "Authorization": f"Bearer {server.owner_key}",
        "Content-Type": "application/json",
    }
    for token in ("%00", "%0e%F2%B9%82%BC", "a%2Bb"):
        connection = http.client.HTTPConnection(*server.address, timeout=30)
        connection.request("POST", f"/invites/{token}", '{"name": "Ada"}', headers)
        assert connection.getresponse().status == 404
        connection.close()

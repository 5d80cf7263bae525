"""Invites, made by the stock SDK: what they are and what is refused. Their pages: test_invite_pages.py."""

import time
from collections.abc import Iterator
from itertools import count

import openai
import pytest
from openai import OpenAI
from tests.support import administration, links
from tests.support.administration import make_user
from tests.support.servers import Server

from tunewarden.identity import invites

_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"invites-{next(_numbers)}"


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


def test_a_program_accepts_with_json(server: Server, admin: OpenAI, organization: str) -> None:
    invite = admin.admin.organization.invites.create(
        email="bob@example.com", role="owner", projects=[]
    )
    assert invite.projects == []
    reply = server.post(links.of(invite), {"name": "Bob"})
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
    made = server.post(links.of(reader), {"name": "Eve"}).json
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


def test_a_viewer_is_told_how_to_become_one(admin: OpenAI) -> None:
    (default,) = admin.admin.organization.projects.list()
    with pytest.raises(openai.BadRequestError) as refused:
        admin.admin.organization.invites.create(
            email="a@example.com",
            role="reader",
            extra_body={"projects": [{"id": default.id, "role": "viewer"}]},
        )
    assert refused.value.param == "role"
    assert "add the user to the project as 'viewer'" in refused.value.message
    assert list(admin.admin.organization.invites.list()) == []


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


def test_events_of_an_acceptance_have_the_request_id_of_its_answer(
    server: Server, admin: OpenAI
) -> None:
    invite = admin.admin.organization.invites.create(email="a@example.com", role="reader")
    reply = links.accepted(server, links.of(invite))
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
        links.of(
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
    assert "was archived" in links.accepted(server, dead).body.decode()
    assert links.opened(server, dead).status == 200, "it is not spent"
    assert list(resource.users.list(emails=["1@example.com"])) == []

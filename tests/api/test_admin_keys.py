"""`client.admin.organization.admin_api_keys` by the stock SDK; what admin keys may, and where API keys end."""

import json
import time
from collections.abc import Iterator
from itertools import count

import openai
import pytest
from openai import OpenAI
from tests.support import administration
from tests.support.servers import Server, wait_until

from tunewarden.identity import key_format
from tunewarden.identity.policy import Role

_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"admin-keys-{next(_numbers)}"


@pytest.fixture
def admin(server: Server, organization: str) -> Iterator[OpenAI]:
    with administration.client(
        server, administration.make_admin_key(server.app, organization)
    ) as client:
        yield client


def _is_valid(server: Server, key: str) -> bool:
    return server.get("/v1/organization/users", key=key).status == 200


def test_an_admin_key_is_created_used_listed_and_revoked(server: Server, admin: OpenAI) -> None:
    keys = admin.admin.organization.admin_api_keys
    (first,) = keys.list()
    made = keys.create(name="terraform")
    assert made.expires_at is None
    assert (made.owner.role, made.owner.type) == ("owner", "user")
    assert made.owner.id == first.owner.id
    assert made.value.startswith(made.redacted_value.removesuffix("***"))
    assert keys.retrieve(made.id).name == "terraform"
    assert _is_valid(server, made.value)
    wait_until(lambda: keys.retrieve(made.id).last_used_at, "its use is counted")
    assert [one.id for one in keys.list(limit=1)] == [first.id, made.id]
    assert [one.id for one in keys.list(limit=1, order="desc")] == [made.id, first.id]
    deleted = keys.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    assert not any(_is_valid(server, made.value) for _ in range(8))
    with pytest.raises(openai.NotFoundError):
        keys.retrieve(made.id)


def test_an_admin_key_may_revoke_itself(server: Server, admin: OpenAI) -> None:
    keys = admin.admin.organization.admin_api_keys
    (own,) = keys.list()
    assert keys.delete(own.id).deleted
    with pytest.raises(openai.AuthenticationError):
        keys.list()


def test_an_admin_key_expires(server: Server, admin: OpenAI) -> None:
    made = admin.admin.organization.admin_api_keys.create(name="short", expires_in_seconds=1)
    assert made.expires_at is not None
    wait_until(lambda: not _is_valid(server, made.value), "it has expired", 5)
    assert time.time() >= made.expires_at


def test_an_admin_key_ends_for_good_with_the_role_of_its_user(
    server: Server, admin: OpenAI, organization: str
) -> None:
    user = administration.make_user(
        server.app, "second", role=Role.OWNER, organization=organization
    )
    theirs = administration.make_admin_key(server.app, organization, user_id=user)
    assert _is_valid(server, theirs)
    users = admin.admin.organization.users
    users.update(user, role="reader")
    assert not any(_is_valid(server, theirs) for _ in range(8))
    key_id = key_format.present(theirs).id
    with server.app.database.read() as tx:
        told = tx.rows(
            "SELECT type FROM audit_events WHERE resource_id = :id ORDER BY n", id=key_id
        )
    assert told.count(("admin_api_key.deleted",)) == 1
    users.update(user, role="owner")
    assert not any(_is_valid(server, theirs) for _ in range(8))
    assert key_id not in {one.id for one in admin.admin.organization.admin_api_keys.list()}


def test_admin_keys_that_an_older_version_left_to_a_reader_do_not_live_again(
    server: Server, admin: OpenAI, organization: str
) -> None:
    user = administration.make_user(
        server.app, "second", role=Role.OWNER, organization=organization
    )
    theirs = administration.make_admin_key(server.app, organization, user_id=user)
    with server.app.database.write() as tx:  # as a demotion was once
        tx.run("UPDATE users SET role = 'reader' WHERE id = :id", id=user)
    admin.admin.organization.users.update(user, role="owner")
    assert not any(_is_valid(server, theirs) for _ in range(8))


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/files", "/v1/fine_tuning/jobs", "/v1/deletions", "/v1/nothing"]
)
def test_admin_keys_only_administer(server: Server, organization: str, path: str) -> None:
    reply = server.get(path, key=administration.make_admin_key(server.app, organization))
    assert (reply.status, reply.error["code"]) == (403, "missing_scope")
    assert "only administers" in reply.error["message"]


def test_an_admin_key_asks_no_model(server: Server, organization: str) -> None:
    key = administration.make_admin_key(server.app, organization)
    fields = {"model": "tiny-base", "messages": []}
    reply = server.post("/v1/chat/completions", fields, key=key)
    assert (reply.status, reply.error["code"]) == (403, "missing_scope")


def test_api_keys_do_not_administer_and_are_told_what_does(server: Server) -> None:
    reply = server.get("/v1/organization/users", key=server.owner_key)
    assert (reply.status, reply.error["code"]) == (403, "missing_scope")
    assert "tunewarden admin-keys create" in reply.error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x", "expires_in_seconds": 0}, "expires_in_seconds"),
        ({"name": "x", "owner": "user_x"}, "owner"),
    ],
)
def test_what_an_admin_key_cannot_have_is_refused(
    admin: OpenAI, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        admin.admin.organization.admin_api_keys.create(name="", extra_body=fields)
    assert refused.value.param == param


def test_admin_keys_of_another_organization_do_not_exist(server: Server, admin: OpenAI) -> None:
    (own,) = admin.admin.organization.admin_api_keys.list()
    with administration.client(
        server, administration.make_admin_key(server.app, "strangers")
    ) as others:
        theirs = others.admin.organization.admin_api_keys
        for attempt in (lambda: theirs.retrieve(own.id), lambda: theirs.delete(own.id)):
            with pytest.raises(openai.NotFoundError):
                attempt()
        with pytest.raises(openai.BadRequestError):
            list(theirs.list(after=own.id))
    assert admin.admin.organization.admin_api_keys.retrieve(own.id).id == own.id


def test_an_owner_makes_an_admin_key_for_another_owner(
    server: Server, admin: OpenAI, organization: str
) -> None:
    keys = admin.admin.organization.admin_api_keys
    (own,) = keys.list()
    ada = administration.make_user(server.app, "ada", role=Role.OWNER, organization=organization)
    made = keys.create(name="ada's", extra_body={"user_id": ada})
    assert (made.owner.id, made.owner.name) == (ada, "ada")
    with administration.client(server, made.value) as hers:
        assert len(list(hers.admin.organization.admin_api_keys.list())) == 2
    event = server.app.database.peek(
        "SELECT actor_key_id, actor_user_id, details FROM audit_events"
        " WHERE type = 'admin_api_key.created' AND resource_id = :id",
        id=made.id,
    )
    assert event is not None
    assert event[:2] == (own.id, own.owner.id)
    assert json.loads(event[2])["user_id"] == ada


def test_only_owners_of_the_organization_get_an_admin_key(
    server: Server, admin: OpenAI, organization: str
) -> None:
    resource = admin.admin.organization
    project = resource.projects.create(name="p").id
    account = resource.projects.service_accounts.create(project, name="ci").id
    reader = administration.make_user(server.app, "reader", organization=organization)
    for user in (account, reader):
        with pytest.raises(openai.BadRequestError) as refused:
            resource.admin_api_keys.create(name="x", extra_body={"user_id": user})
        assert (refused.value.code, refused.value.param) == ("user_not_owner", "user_id")
        assert "only Owners have admin keys" in refused.value.message
    foreign = administration.make_user(server.app, "eve", role=Role.OWNER, organization="strangers")
    for user in (foreign, "user_nobody"):
        with pytest.raises(openai.NotFoundError) as missing:
            resource.admin_api_keys.create(name="x", extra_body={"user_id": user})
        assert f"No such user: '{user}'." in missing.value.message
    assert len(list(resource.admin_api_keys.list())) == 1

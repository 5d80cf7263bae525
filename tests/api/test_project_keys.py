"""`client.admin.organization.projects.api_keys` by the stock SDK, and our extension that creates people's keys."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.support import administration
from tests.support.access import Administrator
from tests.support.administration import make_user
from tests.support.servers import Server, wait_until

from tunewarden.identity.policy import Role

_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"keys-{next(_numbers)}"


@pytest.fixture
def admin_key(server: Server, organization: str) -> str:
    return administration.make_admin_key(server.app, organization)


@pytest.fixture
def admin(server: Server, admin_key: str) -> Iterator[OpenAI]:
    with administration.client(server, admin_key) as client:
        yield client


@pytest.fixture
def project(admin: OpenAI) -> str:
    return admin.admin.organization.projects.create(name="p").id


@pytest.fixture
def member(server: Server, admin: OpenAI, organization: str, project: str) -> str:
    user = make_user(server.app, "ada", email="ada@example.com", organization=organization)
    admin.admin.organization.projects.users.create(project, user_id=user, role="member")
    return user


def _create(
    server: Server, admin_key: str, project: str, user: str, **fields: object
) -> dict[str, Any]:
    path = f"/projects/{project}/api_keys"
    reply = administration.ask(
        server, "POST", path, admin_key, {"user_id": user, "name": "laptop", **fields}
    )
    assert reply.status == 200, reply.body
    return reply.json


def _status(server: Server, key: str, path: str = "/v1/models") -> int:
    return server.get(path, key=key).status


def test_a_persons_key_is_created_used_listed_and_revoked(
    server: Server, admin: OpenAI, admin_key: str, project: str, member: str
) -> None:
    keys = admin.admin.organization.projects.api_keys
    made = _create(server, admin_key, project, member)
    text = made["value"]
    assert keys.retrieve(made["id"], project_id=project).last_used_at is None
    assert _status(server, text) == 200
    (listed,) = keys.list(project)
    assert listed.id == made["id"]
    assert (listed.owner.type, listed.owner_project_access) == ("user", "active")
    assert listed.owner.user is not None
    assert (listed.owner.user.id, listed.owner.user.email, listed.owner.user.role) == (
        member,
        "ada@example.com",
        "member",
    )
    assert text.startswith(listed.redacted_value.removesuffix("***"))
    assert text not in listed.redacted_value
    wait_until(
        lambda: keys.retrieve(made["id"], project_id=project).last_used_at, "its use is counted"
    )
    deleted = keys.delete(made["id"], project_id=project)
    assert (deleted.id, deleted.deleted) == (made["id"], True)
    for _ in range(8):  # both workers
        assert _status(server, text) == 401
    with pytest.raises(openai.NotFoundError):
        keys.retrieve(made["id"], project_id=project)
    assert list(keys.list(project)) == []


def test_scopes_are_replaced_and_an_empty_list_lifts_them(
    server: Server, admin: OpenAI, admin_key: str, project: str, member: str
) -> None:
    keys = admin.admin.organization.projects.api_keys
    made = _create(server, admin_key, project, member, scopes=["api.model.read"])
    assert made["scopes"] == ["api.model.read"]
    assert _status(server, made["value"]) == 200
    assert _status(server, made["value"], "/v1/files") == 403
    keys.update(made["id"], project_id=project, scopes=["api.files.read"])
    assert _status(server, made["value"]) == 403
    assert _status(server, made["value"], "/v1/files") == 200
    keys.update(made["id"], project_id=project, scopes=[])
    assert _status(server, made["value"]) == 200
    keys.update(made["id"], project_id=project)
    assert _status(server, made["value"]) == 200
    with pytest.raises(openai.BadRequestError) as refused:
        keys.update(made["id"], project_id=project, scopes=["api.management.write"])
    assert refused.value.param == "scopes"
    _, known = refused.value.message.split("Known: ")
    assert {"api.all", "api.all.read", "api.model.read"} <= {*known.rstrip(".").split(", ")}


def test_the_end_of_a_key_is_moved_both_ways(
    server: Server, admin: OpenAI, admin_key: str, project: str, member: str
) -> None:
    keys = admin.admin.organization.projects.api_keys
    made = _create(server, admin_key, project, member)
    assert made["expires_at"] is None
    later = keys.update(made["id"], project_id=project, expires_in_seconds=3600)
    assert later.expires_at is not None
    assert 3590 < later.expires_at - time.time() <= 3600
    assert keys.update(made["id"], project_id=project).expires_at == later.expires_at
    sooner = keys.update(made["id"], project_id=project, expires_in_seconds=1)
    wait_until(lambda: _status(server, made["value"]) == 401, "it has expired", 5)
    assert sooner.expires_at is not None
    assert time.time() >= sooner.expires_at


def test_keys_are_filtered_by_the_access_of_their_users(  # noqa: PLR0917  fixtures
    server: Server, admin: OpenAI, admin_key: str, project: str, member: str, organization: str
) -> None:
    projects = admin.admin.organization.projects
    owner = make_user(server.app, "owner", role=Role.OWNER, organization=organization)
    ids = {
        name: _create(server, admin_key, project, user, name=name)["id"]
        for name, user in (("member", member), ("owner", owner))
    }
    assert [one.id for one in projects.api_keys.list(project, limit=1)] == [*ids.values()][::-1]
    projects.users.delete(member, project_id=project)

    def found(access: Any) -> set[str]:
        return {one.id for one in projects.api_keys.list(project, owner_project_access=access)}

    assert found("active") == {ids["owner"]}
    assert found("inactive") == {ids["member"]}
    assert found("any") == {*ids.values()}
    lost = projects.api_keys.retrieve(ids["member"], project_id=project)
    assert lost.owner_project_access == "inactive"
    assert lost.owner.user is not None
    assert lost.owner.user.role == "none"
    reply = administration.ask(
        server, "GET", f"/projects/{project}/api_keys?owner_project_access=some", admin_key
    )
    assert (reply.status, reply.error["param"]) == (400, "owner_project_access")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"user_id": None}, 400, "user_id"),
        ({"user_id": "user_nobody"}, 404, "user_id"),
        ({"user_id": 3}, 400, "user_id"),
        ({"name": None}, 400, "name"),
        ({"name": "a\nb"}, 400, "name"),
        ({"scopes": "api.all"}, 400, "scopes"),
        ({"scopes": [1]}, 400, "scopes"),
        ({"scopes": ["api.x"]}, 400, "scopes"),
        ({"expires_in_seconds": -1}, 400, "expires_in_seconds"),
        ({"expires_in_seconds": 1.5}, 400, "expires_in_seconds"),
        ({"role": "owner"}, 400, "role"),
    ],
)
def test_what_a_key_cannot_have_is_refused(  # noqa: PLR0917  the case
    server: Server,
    admin_key: str,
    project: str,
    member: str,
    fields: dict[str, object],
    status: int,
    param: str,
) -> None:
    chosen = {"user_id": member, "name": "laptop", **fields}
    path = f"/projects/{project}/api_keys"
    reply = administration.ask(server, "POST", path, admin_key, chosen)
    assert (reply.status, reply.error["param"]) == (status, param)
    assert administration.ask(server, "GET", path, admin_key).json["data"] == []


def test_who_is_not_in_the_project_gets_no_key_there(
    server: Server, admin_key: str, project: str, organization: str
) -> None:
    outside = make_user(server.app, "outside", organization=organization)
    path = f"/projects/{project}/api_keys"
    fields = {"user_id": outside, "name": "laptop"}
    reply = administration.ask(server, "POST", path, admin_key, fields)
    assert (reply.status, reply.error["code"]) == (400, "user_not_in_project")
    assert administration.ask(server, "GET", path, admin_key).json["data"] == []


def test_no_secret_is_in_events_lists_or_the_servers_log(
    server: Server, admin: OpenAI, admin_key: str, project: str, member: str
) -> None:
    text = _create(server, admin_key, project, member)["value"]
    secret = text.split("-")[-1][:20]
    with server.app.database.read() as tx:
        rows = repr([tx.rows(f"SELECT * FROM {name}") for name in ("api_keys", "audit_events")])
    assert secret not in rows
    assert secret not in server.log() + server.printed()
    assert secret not in repr(list(admin.admin.organization.projects.api_keys.list(project)))


def test_who_is_added_to_a_project_again_gets_no_old_key_back(server: Server) -> None:
    administrator = Administrator(server, "added-again")
    holder = administrator.new_holder("member")
    owner = administrator.new_holder("owner", holder.project_id)
    users = f"/projects/{holder.project_id}/users"

    def works(key: str) -> bool:
        return server.get("/v1/files", key=key).status == 200

    assert [works(one.key) for one in (holder, owner)] == [True, True]
    administrator.ask("DELETE", f"{users}/{holder.user_id}")
    assert not works(holder.key)
    for one in (holder, owner):
        administrator.ask("POST", users, {"user_id": one.user_id, "role": "member"})
    assert [works(one.key) for one in (holder, owner)] == [False, True]
    path = f"/projects/{holder.project_id}/api_keys"
    fields = {"user_id": holder.user_id, "name": "new"}
    assert works(str(administrator.ask("POST", path, fields)["value"]))
    administrator.ask("POST", f"{users}/{holder.user_id}", {"role": "viewer"})
    listed = administrator.ask("GET", path)["data"]
    assert isinstance(listed, list)
    assert holder.key_id not in {one["id"] for one in listed}

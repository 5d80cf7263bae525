"""`client.admin.organization.users`: people of an organization, by the stock SDK, which checks what it gets."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.support import administration
from tests.support.administration import make_user
from tests.support.servers import Server, wait_until

from tunewarden import audit
from tunewarden.db.database import Tx
from tunewarden.identity import organizations, project_members, projects
from tunewarden.identity.policy import ProjectRole, Role
from tunewarden.registry import usage

RACES = 30
_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"people-{next(_numbers)}"


@pytest.fixture
def admin(server: Server, organization: str) -> Iterator[OpenAI]:
    with administration.client(
        server, administration.make_admin_key(server.app, organization)
    ) as client:
        yield client


class _Counting:
    """A transaction that counts its statements."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        self.count += 1
        return getattr(self._tx, name)


def _refused(error: openai.APIStatusError) -> tuple[int, str | None, str | None]:
    return error.status_code, error.code, error.param


def test_people_are_listed_page_by_page_newest_first(
    server: Server, admin: OpenAI, organization: str
) -> None:
    made = [make_user(server.app, f"user {n}", organization=organization) for n in range(7)]
    found = list(admin.admin.organization.users.list(limit=3))
    assert [user.id for user in found[:7]] == made[::-1]
    assert found[-1].role == "owner"  # whose key asks
    assert len(found) == 8
    first = admin.admin.organization.users.list(limit=3)
    assert (first.has_more, first.last_id) == (True, found[2].id)


def test_people_are_found_by_address(server: Server, admin: OpenAI, organization: str) -> None:
    users = admin.admin.organization.users
    ada, _, bob = (
        make_user(server.app, name, email=f"{name}@example.com", organization=organization)
        for name in ("ada", "eve", "bob")
    )
    make_user(server.app, "stranger", email="ada@example.com", organization="strangers")
    found = list(users.list(emails=["ADA@example.com", "bob@example.com", "no@example.com"]))
    assert [(user.id, user.email) for user in found] == [
        (bob, "bob@example.com"),
        (ada, "ada@example.com"),
    ]
    assert [user.id for user in users.list(emails=["ada@example.com", "bob@example.com"], limit=1)]
    one = users.list(emails=["ada@example.com", "bob@example.com"], limit=1)
    assert [user.id for user in one] == [bob, ada]


def test_a_role_is_changed_and_the_admin_keys_of_who_was_demoted_stop(
    server: Server, admin: OpenAI, organization: str
) -> None:
    users = admin.admin.organization.users
    ada = make_user(server.app, "ada", organization=organization)
    assert users.retrieve(ada).role == "reader"
    assert users.update(ada, role="owner").role == "owner"
    assert users.update(ada).role == "owner"
    key = administration.make_admin_key(server.app, organization, user_id=ada)
    with administration.client(server, key) as hers:
        hers.admin.organization.users.list()
        assert users.update(ada, role="reader").role == "reader"
        for _ in range(8):  # both workers
            with pytest.raises(openai.AuthenticationError):
                hers.admin.organization.users.list()


def test_a_promotion_brings_no_key_of_an_earlier_time_as_owner_back(
    server: Server, admin: OpenAI, organization: str
) -> None:
    resource = admin.admin.organization
    admin_key = administration.make_admin_key(server.app, organization)
    ada = make_user(server.app, "ada", organization=organization)
    own, other = (resource.projects.create(name=name).id for name in ("own", "other"))
    resource.projects.users.create(own, user_id=ada, role="member")
    resource.users.update(ada, role="owner")

    def new_key(project: str) -> str:
        fields = {"user_id": ada, "name": "laptop"}
        path = f"/projects/{project}/api_keys"
        return str(administration.ask(server, "POST", path, admin_key, fields).json["value"])

    def statuses(*keys: str) -> list[int]:
        return [server.get("/v1/models", key=key).status for key in keys]

    in_own, in_other = new_key(own), new_key(other)
    assert statuses(in_own, in_other) == [200, 200]
    resource.users.update(ada, role="reader")
    assert statuses(in_own, in_other) == [200, 401]
    resource.users.update(ada, role="owner")
    assert statuses(in_own, in_other) == [200, 401]
    # Of a member who was removed meanwhile: it could do nothing, and stays so.
    resource.users.update(ada, role="reader")
    resource.projects.users.delete(ada, project_id=own)
    resource.users.update(ada, role="owner")
    assert statuses(in_own, new_key(own)) == [401, 200]


def test_people_are_shown_with_their_projects_and_the_last_use_of_a_key(
    server: Server, admin: OpenAI, organization: str
) -> None:
    resource = admin.admin.organization
    ada, bob = (make_user(server.app, name, organization=organization) for name in ("ada", "bob"))
    support, research, ended = (
        resource.projects.create(name=name).id for name in ("support", "research", "ended")
    )
    for project, role in ((support, "viewer"), (research, "owner"), (ended, "member")):
        resource.projects.users.create(project, user_id=ada, role=role)
    resource.projects.archive(ended)
    seen = resource.users.retrieve(ada)
    assert seen.projects is not None
    assert seen.projects.object == "list"
    assert {(one.id, one.name, one.role) for one in seen.projects.data} == {
        (support, "support", "viewer"),
        (research, "research", "owner"),
    }
    assert seen.api_key_last_used_at is None
    key = administration.ask(
        server,
        "POST",
        f"/projects/{support}/api_keys",
        administration.make_admin_key(server.app, organization),
        {"user_id": ada, "name": "laptop"},
    ).json
    before = int(time.time())
    server.client(key["value"]).models.list()
    wait_until(lambda: resource.users.retrieve(ada).api_key_last_used_at, "its use is counted")
    listed = {user.id: user for user in resource.users.list()}
    used_at = listed[ada].api_key_last_used_at
    assert used_at is not None
    assert before <= used_at <= time.time()
    assert listed[ada].projects == seen.projects
    other = listed[bob]
    assert other.projects is not None
    assert (other.projects.data, other.api_key_last_used_at) == ([], None)
    # Using a key that was revoked since was a use too.
    resource.projects.api_keys.delete(key["id"], project_id=support)
    assert resource.users.update(ada, role="reader").api_key_last_used_at == used_at


def test_a_page_of_people_takes_as_many_statements_as_one_person(
    server: Server, organization: str
) -> None:
    people = [make_user(server.app, f"user {n}", organization=organization) for n in range(100)]
    most = project_members.PROJECTS_SHOWN_MAX
    with server.app.database.write() as tx:
        organization_id = organizations.find(tx, organization)
        for n in range(most + 1):
            project = projects.create(tx, organization_id, f"p{n}", audit.SERVER, is_default=False)
            project_members.set_role(tx, project, people[0], ProjectRole.MEMBER)
    for some in (people[:1], people):
        with server.app.database.read() as tx:
            counting = _Counting(tx)
            in_projects = project_members.projects_of(counting, some)
            usage.last_uses_of_users(counting, some)
        assert counting.count == 2
        assert in_projects.keys() == {*some}
        assert len(in_projects[people[0]]) == most


@pytest.mark.parametrize("fields", [{"role": "admin"}, {"role_id": "role_x"}, {"role": 3}])
def test_what_is_no_role_is_refused(
    server: Server, admin: OpenAI, organization: str, fields: dict[str, object]
) -> None:
    ada = make_user(server.app, "ada", organization=organization)
    with pytest.raises(openai.BadRequestError) as refused:
        admin.admin.organization.users.update(ada, extra_body=fields)
    assert refused.value.param == next(iter(fields))


def test_the_last_owner_stays_one(server: Server, admin: OpenAI, organization: str) -> None:
    users = admin.admin.organization.users
    make_user(server.app, "reader", organization=organization)
    (owner,) = (user for user in users.list() if user.role == "owner")
    for attempt in (lambda: users.update(owner.id, role="reader"), lambda: users.delete(owner.id)):
        with pytest.raises(openai.ConflictError) as refused:
            attempt()
        assert _refused(refused.value) == (409, "last_owner", "user_id")
        assert refused.value.response.headers["x-should-retry"] == "false"
    assert users.retrieve(owner.id).role == "owner"


def _duel(server: Server, organization: str, method: str) -> tuple[int, ...]:
    """Two Owners demote or remove each other at once; return both statuses, the lower one first."""
    two = [
        make_user(server.app, name, role=Role.OWNER, organization=organization)
        for name in ("ada", "bob")
    ]
    keys = [administration.make_admin_key(server.app, organization, user_id=user) for user in two]
    start = threading.Barrier(2)

    def attempt(me: int) -> int:
        start.wait()
        fields = None if method == "DELETE" else {"role": "reader"}
        return administration.ask(server, method, f"/users/{two[1 - me]}", keys[me], fields).status

    with ThreadPoolExecutor(2) as pool:
        return tuple(sorted(pool.map(attempt, (0, 1))))


def test_two_owners_who_demote_or_remove_each_other_at_once_leave_one(server: Server) -> None:
    """Each round has both orders of commits possible: exactly one of the two attempts may succeed."""
    outcomes = []
    for n in range(RACES):
        organization = f"duel-{n}"
        outcomes.append(_duel(server, organization, "DELETE" if n % 2 else "POST"))
        row = server.app.database.peek(
            "SELECT COUNT(*) FROM users u JOIN organizations o ON o.id = u.organization_id"
            " WHERE o.name = :name AND u.role = 'owner' AND u.removed_at IS NULL",
            name=organization,
        )
        assert row == (1,), outcomes
    print(f"{RACES} duels: {sorted(set(outcomes))}")
    # Who came second either was no Owner any more or would have left none.
    assert set(outcomes) <= {(200, 401), (200, 409)}


def test_who_is_removed_is_gone_but_for_the_id(
    server: Server, admin: OpenAI, organization: str
) -> None:
    app, users = server.app, admin.admin.organization.users
    key = server.make_key("owner", organization=organization)
    row = app.database.peek(
        "SELECT user_id FROM api_keys WHERE id = :id", id=f"key_{key.split('-')[2]}"
    )
    assert row is not None
    user = str(row[0])
    with app.database.write() as tx:
        tx.run(
            "UPDATE users SET email = 'secret.address@example.com', name = 'Secret Name' WHERE id = :id",
            id=user,
        )
    theirs = administration.make_admin_key(app, organization, user_id=user)
    server.client(key).models.list()
    deleted = users.delete(user)
    assert (deleted.id, deleted.deleted, deleted.object) == (
        user,
        True,
        "organization.user.deleted",
    )
    for _ in range(8):  # both workers
        with pytest.raises(openai.AuthenticationError):
            server.client(key, max_retries=0).models.list()
        assert administration.ask(server, "GET", "/users", theirs).status == 401
    for attempt in (users.retrieve, users.delete):
        with pytest.raises(openai.NotFoundError) as missing:
            attempt(user)
        assert missing.value.param == "user_id"
    assert user not in {one.id for one in users.list()}
    kept = app.database.peek(
        "SELECT name, email, removed_at > 0 FROM users WHERE id = :id", id=user
    )
    assert kept == ("", None, 1)
    counts = app.database.peek(
        "SELECT (SELECT COUNT(*) FROM project_members WHERE user_id = :id),"
        " (SELECT COUNT(*) FROM api_keys WHERE user_id = :id AND revoked_at IS NULL),"
        " (SELECT COUNT(*) FROM admin_api_keys WHERE user_id = :id AND revoked_at IS NULL)",
        id=user,
    )
    assert counts == (0, 0, 0)
    # Events name nobody: ids only.
    with app.database.read() as tx:
        told = [
            str(event)
            for event in tx.rows(
                "SELECT * FROM audit_events WHERE organization_id IN"
                " (SELECT organization_id FROM audit_events WHERE resource_id = :id)",
                id=user,
            )
        ]
    assert any(user in event and "user.deleted" in event for event in told)
    assert not any("ecret" in event for event in told)


def test_an_address_is_free_again_once_its_user_is_removed(
    server: Server, admin: OpenAI, organization: str
) -> None:
    users = admin.admin.organization.users
    first = make_user(server.app, "a", email="a@example.com", organization=organization)
    users.delete(first)
    second = make_user(server.app, "a", email="a@example.com", organization=organization)
    assert [user.id for user in users.list(emails=["a@example.com"])] == [second]


def test_a_demoted_owners_next_delete_is_refused_on_every_worker(
    server: Server, admin: OpenAI, organization: str
) -> None:
    key = server.make_key("owner", organization=organization)
    model = server.make_model(key=key).id
    row = server.app.database.peek(
        "SELECT user_id FROM api_keys WHERE id = :id", id=f"key_{key.split('-')[2]}"
    )
    assert row is not None
    admin.admin.organization.users.update(str(row[0]), role="reader")
    for _ in range(8):
        with pytest.raises(openai.PermissionDeniedError):
            server.client(key, max_retries=0).models.delete(model)
    assert server.client(key).models.retrieve(model).id == model  # in the project the user stays


def test_who_alone_can_administer_neither_leaves_nor_steps_back(
    server: Server, admin: OpenAI, organization: str
) -> None:
    resource = admin.admin.organization
    (me,) = resource.users.list()
    ada = make_user(server.app, "ada", role=Role.OWNER, organization=organization)
    attempts = (
        lambda: resource.users.update(me.id, role="reader"),
        lambda: resource.users.delete(me.id),
    )

    def refuses() -> None:
        for attempt in attempts:
            with pytest.raises(openai.ConflictError) as refused:
                attempt()
            assert _refused(refused.value) == (409, "last_admin_key", "user_id")
            assert "tunewarden admin-keys create" in refused.value.message
        assert resource.users.retrieve(me.id).role == "owner"

    refuses()
    hers = resource.admin_api_keys.create(name="hers", extra_body={"user_id": ada})
    with server.app.database.write() as tx:
        tx.run("UPDATE admin_api_keys SET expires_at = 1 WHERE id = :id", id=hers.id)
    refuses()
    resource.admin_api_keys.delete(hers.id)
    refuses()
    resource.admin_api_keys.create(name="hers", extra_body={"user_id": ada})
    assert resource.users.update(me.id, role="reader").role == "reader"

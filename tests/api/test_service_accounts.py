"""`client.admin.organization.projects.service_accounts` and their keys, by the stock SDK, which checks what it gets."""

import time
from collections.abc import Iterator
from itertools import count

import openai
import pytest
from openai import OpenAI
from tests.support import administration
from tests.support.servers import Server

_numbers = count()
YEAR = 365 * 24 * 3600


@pytest.fixture
def organization() -> str:
    return f"accounts-{next(_numbers)}"


@pytest.fixture
def admin(server: Server, organization: str) -> Iterator[OpenAI]:
    with administration.client(
        server, administration.make_admin_key(server.app, organization)
    ) as client:
        yield client


@pytest.fixture
def project(admin: OpenAI) -> str:
    return admin.admin.organization.projects.create(name="p").id


def _status(server: Server, method: str, path: str, key: str) -> int:
    return server.request(method, path, key=key).status


def _account(admin: OpenAI, project: str, **fields: object) -> tuple[str, str]:
    """Create a service account with a key; return its id and the key's text."""
    accounts = admin.admin.organization.projects.service_accounts
    made = accounts.create(project, name="ci", extra_body=fields)
    assert made.api_key is not None
    return made.id, made.api_key.value


def test_an_account_comes_with_a_key_that_works_at_once(
    server: Server, admin: OpenAI, project: str
) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    made = accounts.create(project, name="ci", expires_in_seconds=3600)
    assert (made.name, made.role) == ("ci", "member")
    assert made.api_key is not None
    assert made.api_key.expires_at == made.api_key.created_at + 3600
    assert accounts.retrieve(made.id, project_id=project).role == "member"
    listed = server.client(made.api_key.value).models.list()
    assert listed.object == "list"
    (key,) = admin.admin.organization.projects.api_keys.list(project)
    assert (key.id, key.owner.type, key.owner_project_access) == (
        made.api_key.id,
        "service_account",
        "active",
    )
    assert key.owner.service_account is not None
    assert (key.owner.service_account.id, key.owner.service_account.role) == (made.id, "member")


def test_an_account_may_be_made_without_role_and_key(
    server: Server, admin: OpenAI, project: str
) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    made = accounts.create(project, name="later", create_service_account_only=True)
    assert (made.role, made.api_key) == ("none", None)
    assert accounts.retrieve(made.id, project_id=project).role == "none"
    key = accounts.api_keys.create(made.id, project_id=project, name="first")
    assert key.name == "first"
    assert _status(server, "GET", "/v1/models", key.value) == 403
    assert accounts.update(made.id, project_id=project, role="member").role == "member"
    assert _status(server, "GET", "/v1/models", key.value) == 200
    none = accounts.update(made.id, project_id=project, extra_body={"role": "none"})
    assert none.role == "none"
    assert _status(server, "GET", "/v1/models", key.value) == 403


def test_accounts_are_listed_newest_first_and_renamed(admin: OpenAI, project: str) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    made = [accounts.create(project, name=f"account {n}").id for n in range(3)]
    assert [one.id for one in accounts.list(project, limit=1)] == made[::-1]
    changed = accounts.update(made[0], project_id=project, name="renamed", role="owner")
    assert (changed.name, changed.role) == ("renamed", "owner")
    assert accounts.retrieve(made[0], project_id=project) == changed
    assert accounts.update(made[0], project_id=project) == changed
    assert made[0] not in {one.id for one in admin.admin.organization.users.list()}
    assert list(admin.admin.organization.projects.users.list(project)) == []


def test_a_deleted_account_and_its_keys_are_gone(
    server: Server, admin: OpenAI, project: str
) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    account, text = _account(admin, project)
    another = accounts.api_keys.create(account, project_id=project).value
    deleted = accounts.delete(account, project_id=project)
    assert (deleted.id, deleted.deleted) == (account, True)
    for key in (text, another) * 4:  # both workers
        assert _status(server, "GET", "/v1/models", key) == 401
    assert list(admin.admin.organization.projects.api_keys.list(project)) == []
    for attempt in (
        lambda: accounts.retrieve(account, project_id=project),
        lambda: accounts.delete(account, project_id=project),
        lambda: accounts.api_keys.create(account, project_id=project),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()


@pytest.mark.parametrize("role", ["owner", "member"])
def test_a_service_account_makes_but_never_deletes(
    server: Server, admin: OpenAI, project: str, role: str
) -> None:
    account, text = _account(admin, project)
    admin.admin.organization.projects.service_accounts.update(
        account, project_id=project, extra_body={"role": role}
    )
    model = server.make_model(key=text).id
    with pytest.raises(openai.PermissionDeniedError) as refused:
        server.client(text, max_retries=0).models.delete(model)
    assert "a service account never has" in refused.value.message
    assert "Owner role" in refused.value.message
    assert server.client(text).models.retrieve(model).id == model


def test_scopes_restrict_a_key_and_unknown_ones_are_named_with_the_known(
    server: Server, admin: OpenAI, project: str
) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    account, _ = _account(admin, project)
    key = accounts.api_keys.create(account, project_id=project, scopes=["api.files.read"])
    assert _status(server, "GET", "/v1/files", key.value) == 200
    assert _status(server, "GET", "/v1/models", key.value) == 403
    with pytest.raises(openai.BadRequestError) as refused:
        accounts.api_keys.create(account, project_id=project, scopes=["api.nothing"])
    assert refused.value.param == "scopes"
    assert "'api.nothing'" in refused.value.message
    assert "api.all.read" in refused.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": None}, "name"),
        ({"name": "x", "role": "owner"}, "role"),
        ({"name": "x", "create_service_account_only": "yes"}, "create_service_account_only"),
        ({"name": "x", "expires_in_seconds": 0}, "expires_in_seconds"),
        ({"name": "x", "expires_in_seconds": YEAR + 1}, "expires_in_seconds"),
        ({"name": "x", "expires_in_seconds": "60"}, "expires_in_seconds"),
        ({"name": "x", "expires_in_seconds": True}, "expires_in_seconds"),
        (
            {"name": "x", "create_service_account_only": True, "expires_in_seconds": 60},
            "expires_in_seconds",
        ),
    ],
)
def test_what_an_account_cannot_have_is_refused(
    admin: OpenAI, project: str, fields: dict[str, object], param: str
) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    with pytest.raises(openai.BadRequestError) as refused:
        accounts.create(project, name="", extra_body=fields)
    assert refused.value.param == param
    assert list(accounts.list(project)) == []


def test_accounts_of_another_project_or_organization_do_not_exist(
    server: Server, admin: OpenAI, project: str
) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    account, text = _account(admin, project)
    another = admin.admin.organization.projects.create(name="another").id
    others = administration.client(server, administration.make_admin_key(server.app, "strangers"))
    with others:
        theirs = others.admin.organization.projects
        for attempt in (
            lambda: accounts.retrieve(account, project_id=another),
            lambda: accounts.delete(account, project_id=another),
            lambda: theirs.service_accounts.retrieve(account, project_id=project),
            lambda: theirs.service_accounts.delete(account, project_id=project),
            lambda: theirs.service_accounts.update(account, project_id=project, role="owner"),
            lambda: theirs.service_accounts.api_keys.create(account, project_id=project),
            lambda: theirs.service_accounts.create(project, name="x"),
            lambda: list(theirs.service_accounts.list(project)),
        ):
            with pytest.raises(openai.NotFoundError):
                attempt()
    assert _status(server, "GET", "/v1/models", text) == 200


def test_an_archived_project_gets_no_accounts_and_its_accounts_can_be_deleted(
    server: Server, admin: OpenAI, project: str
) -> None:
    accounts = admin.admin.organization.projects.service_accounts
    account, text = _account(admin, project)
    admin.admin.organization.projects.archive(project)
    assert _status(server, "GET", "/v1/models", text) == 401
    for attempt in (
        lambda: accounts.create(project, name="x"),
        lambda: accounts.api_keys.create(account, project_id=project),
        lambda: accounts.update(account, project_id=project, role="owner"),
    ):
        with pytest.raises(openai.ConflictError) as refused:
            attempt()
        assert refused.value.code == "project_archived"
    assert [one.id for one in accounts.list(project)] == [account]
    assert accounts.delete(account, project_id=project).deleted


def test_an_expired_key_says_so_and_cannot_be_changed(
    server: Server, admin: OpenAI, project: str
) -> None:
    accounts, keys = (
        admin.admin.organization.projects.service_accounts,
        admin.admin.organization.projects.api_keys,
    )
    account, _ = _account(admin, project)
    made = accounts.api_keys.create(account, project_id=project, expires_in_seconds=2)
    assert made.expires_at is not None
    while time.time() < made.expires_at:
        assert _status(server, "GET", "/v1/models", made.value) == 200 or (
            time.time() >= made.expires_at
        )
        time.sleep(0.1)
    with pytest.raises(openai.AuthenticationError, match="expired"):
        server.client(made.value, max_retries=0).models.list()
    noted = "SELECT expired_at IS NOT NULL FROM api_keys WHERE id = :id"
    assert server.app.database.peek(noted, id=made.id) == (1,), "recorded before the refusal left"
    with pytest.raises(openai.BadRequestError) as refused:
        keys.update(made.id, project_id=project, expires_in_seconds=60)
    assert refused.value.code == "key_expired"
    assert keys.retrieve(made.id, project_id=project).expires_at == made.expires_at
    assert keys.delete(made.id, project_id=project).deleted

"""The SDK's loop "list, and delete each": it reaches the end of the list, over pages."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import openai
import pytest
from tests.support import administration
from tests.support.servers import Server

from tunewarden.ids import Prefix, mint

PAGES_AND_A_REST = 5
PAGE = 2
_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"emptied-{next(_numbers)}"


@pytest.fixture
def resource(server: Server, organization: str) -> Iterator[Any]:
    key = administration.make_admin_key(server.app, organization)
    with administration.client(server, key) as client:
        yield client.admin.organization


def _emptied(listed: Callable[..., Any], delete: Callable[[str], object]) -> None:
    """Delete each that is listed, in the loop, and then the same with a filter of the client's own."""
    seen = []
    for one in listed(limit=PAGE):
        seen.append(one.id)
        delete(one.id)
    assert len(seen) == len(set(seen)) == PAGES_AND_A_REST
    assert list(listed(limit=PAGE)) == []


def test_api_keys(resource: Any) -> None:
    project = resource.projects.create(name="p").id
    account = resource.projects.service_accounts.create(project, name="a").id
    keys = resource.projects.api_keys
    (first,) = keys.list(project)
    keys.delete(first.id, project_id=project)
    path = f"/organization/projects/{project}/service_accounts/{account}/api_keys"
    for _ in range(PAGES_AND_A_REST):
        resource._client.post(
            path, body={}, cast_to=object, options={"security": {"admin_api_key_auth": True}}
        )
    _emptied(
        lambda **how: keys.list(project, **how),
        lambda key: keys.delete(key, project_id=project),
    )


def test_invites(resource: Any) -> None:
    invites = resource.invites
    for number in range(PAGES_AND_A_REST):
        invites.create(email=f"{number}@example.com", role="reader")
    _emptied(invites.list, invites.delete)


def test_service_accounts(resource: Any) -> None:
    project = resource.projects.create(name="p").id
    accounts = resource.projects.service_accounts
    for number in range(PAGES_AND_A_REST):
        accounts.create(project, name=f"a{number}")
    _emptied(
        lambda **how: accounts.list(project, **how),
        lambda account: accounts.delete(account, project_id=project),
    )


def test_people_of_a_project_and_of_the_organization(
    server: Server, organization: str, resource: Any
) -> None:
    project = resource.projects.create(name="p").id
    users = resource.projects.users
    for number in range(PAGES_AND_A_REST):
        user = administration.make_user(server.app, f"u{number}", organization=organization)
        users.create(project, user_id=user, role="member")
    _emptied(
        lambda **how: users.list(project, **how),
        lambda user: users.delete(user, project_id=project),
    )
    removed = 0
    for one in resource.users.list(limit=PAGE):
        if one.role != "owner":
            resource.users.delete(one.id)
            removed += 1
    assert removed == PAGES_AND_A_REST


def test_admin_keys(resource: Any) -> None:
    keys = resource.admin_api_keys
    for number in range(PAGES_AND_A_REST):
        keys.create(name=f"k{number}")
    removed = 0
    for one in keys.list(limit=PAGE, order="desc"):
        if one.name.startswith("k"):
            keys.delete(one.id)
            removed += 1
    assert removed == PAGES_AND_A_REST


def test_a_cursor_that_never_was_one_is_refused(resource: Any) -> None:
    """Where rows stay. Where they do not, an id of that kind begins anew."""
    project = resource.projects.create(name="p").id
    with pytest.raises(openai.BadRequestError):
        resource.projects.api_keys.list(project, after=mint(Prefix.API_KEY))
    with pytest.raises(openai.BadRequestError):
        resource.invites.list(after=mint(Prefix.API_KEY))
    assert list(resource.invites.list(after=mint(Prefix.INVITE))) == []

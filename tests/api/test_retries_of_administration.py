"""What the stock SDK's own retries do to administration, when the answer of a request is lost on its way back."""

from collections.abc import Callable, Iterator
from itertools import count

import httpx2
import openai
import pytest
from openai import OpenAI
from tests.support import administration
from tests.support.administration import make_user
from tests.support.servers import Server

_numbers = count()


class LosesAnswers(httpx2.HTTPTransport):
    """Sends each request to the server, and loses the first answer to each one that changes something."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[httpx2.Headers] = []
        self.loses = True

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().handle_request(request)
        if request.method == "GET":
            return answer
        self.sent.append(request.headers)
        if self.loses:
            self.loses = False
            answer.close()
            raise httpx2.ReadError("the answer was lost")
        return answer


@pytest.fixture
def organization() -> str:
    return f"retried-{next(_numbers)}"


@pytest.fixture
def user(server: Server, organization: str) -> str:
    return make_user(server.app, "ada", organization=organization)


@pytest.fixture
def network() -> LosesAnswers:
    return LosesAnswers()


@pytest.fixture
def admin(server: Server, organization: str, network: LosesAnswers) -> Iterator[OpenAI]:
    key = administration.make_admin_key(server.app, organization)
    with OpenAI(
        base_url=f"{server.url}",
        api_key="unused",
        admin_api_key=key,
        max_retries=2,
        http_client=openai.DefaultHttpxClient(transport=network),
    ) as client:
        yield client


def _retried(network: LosesAnswers) -> list[str]:
    """Return the retry counts of what was sent; no request had an Idempotency-Key."""
    assert not [one for one in network.sent if "idempotency-key" in one]
    return [one["x-stainless-retry-count"] for one in network.sent]


def test_a_project_and_a_service_account_are_there_twice(
    admin: OpenAI, network: LosesAnswers
) -> None:
    projects = admin.admin.organization.projects
    made = projects.create(name="twice")
    assert _retried(network) == ["0", "1"]
    found = [one.id for one in projects.list() if one.name == "twice"]
    assert len(found) == 2
    assert made.id in found
    network.loses = True
    account = projects.service_accounts.create(made.id, name="twice")
    accounts = [one.id for one in projects.service_accounts.list(made.id)]
    assert len(accounts) == 2
    assert account.id in accounts


def test_a_key_that_nobody_saw_is_beside_the_one_that_was_answered(
    admin: OpenAI, network: LosesAnswers
) -> None:
    keys = admin.admin.organization.admin_api_keys
    made = keys.create(name="twice")
    assert _retried(network) == ["0", "1"]
    found = [one for one in keys.list() if one.name == "twice"]
    unseen = [one.id for one in found if one.id != made.id]
    assert len(unseen) == 1
    assert [one.last_used_at for one in found] == [None, None]
    keys.delete(unseen[0])
    assert [one.id for one in keys.list() if one.name == "twice"] == [made.id]


@pytest.mark.parametrize(
    ("code", "act"),
    [
        (
            "already_in_project",
            lambda admin, user: admin.projects.users.create(
                next(iter(admin.projects.list())).id, user_id=user, role="member"
            ),
        ),
        (
            "already_invited",
            lambda admin, _: admin.invites.create(email="twice@example.com", role="reader"),
        ),
    ],
)
def test_what_can_be_there_once_is_a_conflict_and_there_once(
    admin: OpenAI, network: LosesAnswers, user: str, code: str, act: Callable[..., object]
) -> None:
    with pytest.raises(openai.ConflictError) as refused:
        act(admin.admin.organization, user)
    assert refused.value.code == code
    assert _retried(network)[:2] == ["0", "1"]


def test_what_names_its_object_is_as_if_it_was_sent_once(
    admin: OpenAI, network: LosesAnswers, user: str
) -> None:
    resource = admin.admin.organization
    assert resource.users.update(user, role="owner").role == "owner"
    assert _retried(network) == ["0", "1"]
    network.loses = True
    assert resource.projects.update(next(iter(resource.projects.list())).id, name="n").name == "n"


def test_what_is_gone_and_deleted_again(
    server: Server, admin: OpenAI, user: str, organization: str
) -> None:
    key = administration.make_admin_key(server.app, organization)
    resource = admin.admin.organization
    project = resource.projects.create(name="p").id
    account = resource.projects.service_accounts.create(project, name="a")
    assert account.api_key is not None
    resource.projects.users.create(project, user_id=user, role="member")
    invite = resource.invites.create(email="gone@example.com", role="reader").id
    other = resource.admin_api_keys.create(name="other").id
    at = f"/projects/{project}"
    answers = {
        path: [administration.ask(server, method, path, key).status for _ in range(2)]
        for method, path in (
            ("DELETE", f"{at}/api_keys/{account.api_key.id}"),
            ("DELETE", f"{at}/service_accounts/{account.id}"),
            ("DELETE", f"{at}/users/{user}"),
            ("DELETE", f"/invites/{invite}"),
            ("DELETE", f"/admin_api_keys/{other}"),
            ("DELETE", f"/users/{user}"),
            ("POST", f"{at}/archive"),
        )
    }
    assert [one for one, _ in answers.values()] == [200] * 7
    # What was to go is gone: 404. Archiving is an update.
    assert [one for _, one in answers.values()] == [404] * 6 + [200]

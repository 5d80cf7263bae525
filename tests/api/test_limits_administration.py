"""Rate limits and quotas of projects and keys as administrators set them: the stock SDK, and routes of ours."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.cli import in_process
from tests.fakes.upstream import FakeUpstream
from tests.support import administration, servers
from tests.support.administration import ask
from tests.support.servers import Server
from tests.support.uploading import Field, post

from tunewarden.identity import key_format

NO_LIMIT = 2**31 - 1
BASES = ("a-base", "b-base", "c-base")
MESSAGES = [{"role": "user", "content": "Hello"}]
_numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("limits") / "data"
    with (
        FakeUpstream() as upstream,
        servers.serving(data, workers=2, local_base=True, kind=servers.WithoutTorch) as running,
    ):
        for base in BASES:
            added = in_process.on(running, "bases", "add", base, "--engine-url", upstream.url)
            assert added.returncode == 0, added.stderr
        yield running


class Organization:
    """An organization of the test's own, with an API key of its default project and an admin key."""

    def __init__(self, server: Server) -> None:
        self.server = server
        name = f"limits-{next(_numbers)}"
        self.key = server.make_key("owner", organization=name)
        self.key_id = key_format.present(self.key).id
        self.admin_key = administration.make_admin_key(server.app, name)
        self.project = str(self.administer("GET", "/projects").json["data"][0]["id"])

    def administer(self, method: str, path: str, fields: Any = None) -> Any:
        return ask(self.server, method, path, self.admin_key, fields)

    def chat(self, base: str = BASES[0]) -> int:
        body = {"model": base, "messages": MESSAGES}
        return self.server.post("/v1/chat/completions", body, key=self.key).status

    def upload(self, size: int = 10) -> Any:
        fields = Field("purpose", b"user_data"), Field("file", b"x" * size, "f.bin")
        return post(self.server, "/v1/files", *fields, key=self.key)


@pytest.fixture
def own(server: Server) -> Organization:
    return Organization(server)


@pytest.fixture
def admin(server: Server, own: Organization) -> Iterator[OpenAI]:
    with administration.client(server, own.admin_key) as client:
        yield client


def test_the_stock_sdk_lists_a_limit_of_each_base_and_sets_one(
    admin: OpenAI, own: Organization
) -> None:
    limits = admin.admin.organization.projects.rate_limits
    found = list(limits.list_rate_limits(own.project, limit=2))
    assert [one.id for one in found] == [f"rl-{base}" for base in (*BASES, servers.LOCAL_BASE)]
    assert {one.max_requests_per_1_minute for one in found} == {NO_LIMIT}
    before = limits.list_rate_limits(own.project, before="rl-c-base", limit=1)
    assert [one.model for one in before.data] == ["b-base"]
    assert own.chat() == 200
    changed = limits.update_rate_limit(
        "rl-a-base", project_id=own.project, max_requests_per_1_minute=2
    )
    assert (changed.model, changed.max_requests_per_1_minute) == ("a-base", 2)
    assert changed.max_tokens_per_1_minute == NO_LIMIT
    assert [own.chat() for _ in range(3)] == [200, 200, 429]
    assert own.chat("b-base") == 200, "each base has a limit of its own"
    again = limits.update_rate_limit(
        "rl-a-base", project_id=own.project, max_tokens_per_1_minute=100_000
    )
    assert (again.max_requests_per_1_minute, again.max_tokens_per_1_minute) == (2, 100_000)
    limits.update_rate_limit(
        "rl-a-base", project_id=own.project, max_requests_per_1_minute=NO_LIMIT
    )
    assert {own.chat() for _ in range(5)} == {200}
    assert next(iter(limits.list_rate_limits(own.project))).max_tokens_per_1_minute == 100_000


def test_a_rate_limit_is_named_by_its_base_too_and_recorded_by_its_id(
    server: Server, admin: OpenAI, own: Organization
) -> None:
    limits = admin.admin.organization.projects.rate_limits
    changed = limits.update_rate_limit(
        "a-base", project_id=own.project, max_requests_per_1_minute=9
    )
    assert (changed.id, changed.max_requests_per_1_minute) == ("rl-a-base", 9)
    after = limits.list_rate_limits(own.project, after="a-base", limit=1)
    assert [one.model for one in after.data] == ["b-base"]
    newest = server.app.database.peek(
        "SELECT resource_id FROM audit_events WHERE type = 'rate_limit.updated' ORDER BY n DESC"
    )
    assert newest == ("rl-a-base",)


@pytest.mark.parametrize(
    ("rate_limit", "fields", "refused"),
    [
        ("rl-a-base", {"max_images_per_1_minute": 1}, (400, "max_images_per_1_minute")),
        ("rl-a-base", {"batch_1_day_max_input_tokens": 1}, (400, "batch_1_day_max_input_tokens")),
        ("rl-a-base", {"max_requests_per_1_minute": 0}, (400, "max_requests_per_1_minute")),
        ("rl-a-base", {"max_tokens_per_1_minute": 2**31}, (400, "max_tokens_per_1_minute")),
        ("rl-none", {"max_requests_per_1_minute": 5}, (404, "rate_limit_id")),
        ("none", {"max_requests_per_1_minute": 5}, (404, "rate_limit_id")),
    ],
)
def test_what_cannot_be_set_is_refused_by_name(
    admin: OpenAI, own: Organization, rate_limit: str, fields: Any, refused: tuple[int, str]
) -> None:
    limits = admin.admin.organization.projects.rate_limits
    with pytest.raises(openai.APIStatusError) as error:
        limits.update_rate_limit(rate_limit, project_id=own.project, **fields)
    assert (error.value.status_code, error.value.param) == refused


def test_limits_of_another_organization_are_not_there(server: Server, own: Organization) -> None:
    other = Organization(server)
    for path in ("rate_limits", "quota", f"api_keys/{own.key_id}/rate_limit"):
        assert other.administer("GET", f"/projects/{own.project}/{path}").status == 404
        mine = f"/projects/{other.project}/api_keys/{own.key_id}/rate_limit"
        assert other.administer("POST", mine, {"max_requests_per_1_minute": 1}).status == 404
    assert own.chat() == 200


def test_a_key_gets_a_limit_and_changes_are_events(own: Organization) -> None:
    path = f"/projects/{own.project}/api_keys/{own.key_id}/rate_limit"
    assert own.administer("GET", path).json["max_requests_per_1_minute"] == NO_LIMIT
    changed = own.administer("POST", path, {"max_requests_per_1_minute": 1})
    assert (changed.json["id"], changed.json["max_requests_per_1_minute"]) == (own.key_id, 1)
    assert [own.chat(), own.chat(BASES[1])] == [200, 429]
    events = own.administer("GET", "/audit_logs?event_types[]=rate_limit.updated").json["data"]
    assert events[0]["rate_limit.updated"]["id"] == own.key_id
    assert events[0]["rate_limit.updated"]["changes_requested"]["max_requests_per_1_minute"] == 1


def test_what_changes_nothing_is_no_event(own: Organization) -> None:
    project = f"/projects/{own.project}"
    for path, kind, name in (
        (f"{project}/rate_limits/rl-a-base", "rate_limit.updated", "max_requests_per_1_minute"),
        (
            f"{project}/api_keys/{own.key_id}/rate_limit",
            "rate_limit.updated",
            "max_tokens_per_1_minute",
        ),
        (f"{project}/quota", "project.quota.updated", "max_files"),
    ):
        events = f"/audit_logs?event_types[]={kind}"
        told = [len(own.administer("GET", events).json["data"])]
        for fields in ({}, {name: 7}, {}, {name: 7}, {name: 8}):
            assert own.administer("POST", path, fields).status == 200
            told.append(len(own.administer("GET", events).json["data"]))
        assert [one - told[0] for one in told] == [0, 0, 1, 1, 1, 2], path


def test_files_beyond_the_quota_are_refused_until_one_is_deleted(
    server: Server, own: Organization
) -> None:
    path = f"/projects/{own.project}/quota"
    first = own.administer("GET", path).json
    assert (first["used_bytes"], first["used_files"], first["used_models"]) == (0, 0, 0)
    assert own.administer("POST", path, {"max_files": 2}).json["max_files"] == 2
    made = [own.upload() for _ in range(3)]
    assert [one.status for one in made] == [200, 200, 429]
    refused = made[2]
    assert refused.error["code"] == "files_quota_exceeded"
    assert refused.error["type"] == "insufficient_quota"
    assert "has 2 of 2" in refused.error["message"]
    assert refused.header("x-should-retry") == "false"
    deleted = f"/v1/files/{made[0].json['id']}"
    assert server.request("DELETE", deleted, key=own.key).status == 200
    assert own.administer("GET", path).json["used_files"] == 1
    assert own.upload().status == 200


def test_bytes_beyond_the_quota_of_a_project_are_refused(own: Organization) -> None:
    path = f"/projects/{own.project}/quota"
    own.administer("POST", path, {"max_bytes": 300_000})
    assert own.upload(400_000).error["code"] == "storage_quota_exceeded"
    assert own.upload(100_000).status == 200
    most = own.administer("GET", path).json["max_bytes"]
    assert most == 300_000
    too_much = own.administer("POST", path, {"max_bytes": 2**60})
    assert (too_much.status, too_much.error["param"]) == (400, "max_bytes")


def test_models_beyond_the_quota_are_refused(server: Server, own: Organization) -> None:
    own.administer("POST", f"/projects/{own.project}/quota", {"max_models": 1})
    model = server.make_model(key=own.key)
    with pytest.raises(Exception, match="has 1 of 1"):
        server.make_model(key=own.key)
    assert server.request("DELETE", f"/v1/models/{model.id}", key=own.key).status == 200
    server.make_model(key=own.key)
    used = own.administer("GET", f"/projects/{own.project}/quota").json["used_models"]
    assert used == 1


def test_a_revoked_key_has_no_limit(own: Organization) -> None:
    key = f"/projects/{own.project}/api_keys/{own.key_id}"
    own.administer("POST", f"{key}/rate_limit", {"max_requests_per_1_minute": 1})
    assert own.administer("DELETE", key).status == 200
    for method, fields in (("GET", None), ("POST", {"max_requests_per_1_minute": 2})):
        reply = own.administer(method, f"{key}/rate_limit", fields)
        assert (reply.status, reply.error["param"]) == (404, "api_key_id")

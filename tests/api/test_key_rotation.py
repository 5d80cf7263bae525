"""`POST …/api_keys/{id}/rotate`, an extension: one request, one transaction, through the stock SDK's client."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.support import administration
from tests.support.access import Administrator, Holder
from tests.support.servers import Server

_numbers = count()
DAY = 86_400


@pytest.fixture
def administrator(server: Server) -> Administrator:
    return Administrator(server, f"rotation-{next(_numbers)}")


@pytest.fixture
def admin(server: Server, administrator: Administrator) -> Iterator[OpenAI]:
    key = administration.make_admin_key(server.app, administrator.organization)
    with administration.client(server, key) as client:
        yield client


def _rotate(admin: OpenAI, key: Holder, **fields: object) -> dict[str, Any]:
    path = f"/organization/projects/{key.project_id}/api_keys/{key.key_id}/rotate"
    made: dict[str, Any] = admin.post(
        path,
        body=fields,
        cast_to=dict[str, Any],
        options={"security": {"admin_api_key_auth": True}},
    )
    return made


def _status(server: Server, key: str, path: str = "/v1/models") -> int:
    return server.get(path, key=key).status


def test_a_key_is_rotated_with_name_scopes_and_rate_limit_in_one_request(
    server: Server, administrator: Administrator, admin: OpenAI
) -> None:
    old = administrator.new_holder("member", scopes=["api.model.read"])
    keys = f"/projects/{old.project_id}/api_keys"
    administrator.ask("POST", f"{keys}/{old.key_id}/rate_limit", {"max_requests_per_1_minute": 7})
    made = _rotate(admin, old, overlap_seconds=60)
    assert (made["name"], made["scopes"], made["expires_at"]) == (
        "member",
        ["api.model.read"],
        None,
    )
    assert made["owner"]["user"]["id"] == old.user_id
    assert made["rotated"]["id"] == old.key_id
    assert 0 < made["rotated"]["expires_at"] - time.time() <= 60
    assert [_status(server, key) for key in (old.key, made["value"])] == [200, 200]
    assert _status(server, made["value"], "/v1/files") == 403
    limit = administrator.ask("GET", f"{keys}/{made['id']}/rate_limit")
    assert limit["max_requests_per_1_minute"] == 7
    with server.app.database.read() as tx:
        events = tx.rows(
            "SELECT type, resource_id, actor_key_id, request_id, effective_at FROM audit_events"
            " WHERE resource_id IN (:old, :new) AND type IN ('api_key.created', 'api_key.updated')"
            " ORDER BY n",
            old=old.key_id,
            new=made["id"],
        )
    (*_, created, updated) = events
    assert created[:2] == ("api_key.created", made["id"])
    assert updated[:2] == ("api_key.updated", old.key_id)
    assert created[2:] == updated[2:], "one administrator, one request, one transaction"


def test_without_fields_the_old_key_lives_a_day_and_the_new_one_as_long_as_it_was_made_for(
    administrator: Administrator, admin: OpenAI
) -> None:
    old = administrator.new_holder("account", expires_in_seconds=2 * DAY)
    made = _rotate(admin, old)
    assert made["owner"]["service_account"]["id"] == old.user_id
    assert made["expires_at"] - made["created_at"] == 2 * DAY
    assert DAY - 60 < made["rotated"]["expires_at"] - time.time() <= DAY
    again = _rotate(admin, old, overlap_seconds=3 * DAY, expires_in_seconds=3600)
    assert again["rotated"] == made["rotated"], "it does not live longer than before"
    assert again["expires_at"] - again["created_at"] == 3600


@pytest.mark.parametrize("days", [None, 30])
def test_a_rotation_that_is_sent_again_makes_a_key_that_lives_as_long(
    server: Server, administrator: Administrator, admin: OpenAI, days: int | None
) -> None:
    """As who got no answer does: the old key's grace is not the second new key's life."""
    life = None if days is None else days * DAY
    old = administrator.new_holder("member", expires_in_seconds=life)
    lives = []
    for _ in range(3):
        made = _rotate(admin, old, overlap_seconds=60)
        lives.append(made["expires_at"] and made["expires_at"] - made["created_at"])
        assert _status(server, made["value"]) == 200
    assert lives == [life] * 3
    assert made["rotated"]["expires_at"] - time.time() <= 60
    next_one = Holder(made["value"], made["id"], old.user_id, old.project_id)
    made = _rotate(admin, next_one)
    assert (made["expires_at"] and made["expires_at"] - made["created_at"]) == life


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"overlap_seconds": 0}, "overlap_seconds"),
        ({"overlap_seconds": 400 * DAY}, "overlap_seconds"),
        ({"overlap_seconds": "60"}, "overlap_seconds"),
        ({"expires_in_seconds": 0}, "expires_in_seconds"),
        ({"name": "other"}, "name"),
    ],
)
def test_a_refused_rotation_leaves_everything_as_it_was(
    administrator: Administrator, admin: OpenAI, fields: dict[str, object], param: str
) -> None:
    old = administrator.new_holder("member")
    with pytest.raises(openai.BadRequestError) as refused:
        _rotate(admin, old, **fields)
    assert refused.value.param == param
    (only,) = admin.admin.organization.projects.api_keys.list(old.project_id)
    assert (only.id, only.expires_at) == (old.key_id, None)


def test_a_key_that_is_not_valid_any_more_is_not_rotated(
    server: Server, administrator: Administrator, admin: OpenAI
) -> None:
    expired, revoked, left = (administrator.new_holder("member") for _ in range(3))
    with server.app.database.write() as tx:
        tx.run("UPDATE api_keys SET expires_at = created_at WHERE id = :id", id=expired.key_id)
    projects = admin.admin.organization.projects
    projects.api_keys.delete(revoked.key_id, project_id=revoked.project_id)
    projects.users.delete(left.user_id, project_id=left.project_id)
    for holder, status, code in (
        (expired, 400, "key_expired"),
        (revoked, 404, None),
        (left, 400, "user_not_in_project"),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            _rotate(admin, holder)
        assert (refused.value.status_code, refused.value.code) == (status, code)
    left_keys = [one.id for one in projects.api_keys.list(left.project_id)]
    assert left_keys == [left.key_id]
    assert list(projects.api_keys.list(revoked.project_id)) == []
    projects.archive(left.project_id)
    with pytest.raises(openai.ConflictError):
        _rotate(admin, left)

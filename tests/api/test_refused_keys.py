"""Keys that are refused at administration: whose refusal it is, and how it is counted."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import administration
from tests.support.administration import ask
from tests.support.servers import Server, WithoutTorch, serving, wait_until

from tunewarden.audit.refusals import LISTED_MAX
from tunewarden.identity import key_format


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("refused") / "data", kind=WithoutTorch) as running:
        yield running


def _with_another_secret(key: str) -> str:
    """A key with the same id that somebody made up."""
    beginning, _, ending = key.rpartition("-")
    secret = "A" * (len(ending) - key_format.CHECKSUM_LENGTH)
    body = beginning.rpartition("-")[2]
    return f"{beginning}-{secret}{key_format.checksum(body + secret)}"


def _actors(server: Server, admin_key: str, key: str) -> list[str | None]:
    """Who asked, of the listed refusals that name a key."""
    query = f"resource_ids[]={key_format.present(key).id}&event_types[]=request.refused&limit=100"
    found = ask(server, "GET", f"/audit_logs?{query}", admin_key).json["data"]
    return [one["actor"] and one["actor"]["api_key"]["id"] for one in found]


def test_a_flood_with_one_key_hides_no_refusal_of_another(server: Server) -> None:
    admin_key = administration.make_admin_key(server.app, "flood")
    loud, quiet = (server.make_key("reader", organization="flood") for _ in range(2))
    for _ in range(LISTED_MAX + 5):
        assert ask(server, "GET", "/users", loud).status == 403
    assert ask(server, "GET", "/users", quiet).status == 403
    for key, count in ((loud, LISTED_MAX), (quiet, 1)):
        assert _actors(server, admin_key, key) == [key_format.present(key).id] * count


@pytest.mark.parametrize("kind", ["key", "admin-key"])
def test_who_knows_only_the_id_of_a_key_asks_not_in_its_name(server: Server, kind: str) -> None:
    name = f"guessed-{kind}"
    admin_key = administration.make_admin_key(server.app, name)
    key = server.make_key("owner", organization=name)
    target = key if kind == "key" else administration.make_admin_key(server.app, name)
    guessed = _with_another_secret(target)
    for _ in range(LISTED_MAX + 5):
        reply = ask(server, "GET", "/users", guessed)
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert _actors(server, admin_key, target) == [None] * LISTED_MAX
    assert ask(server, "GET", "/users", key).status == 403
    assert key_format.present(key).id in _actors(server, admin_key, key)


def test_a_refused_admin_key_is_told_how_one_is_made(server: Server) -> None:
    key = administration.make_admin_key(server.app)
    for wrong in (
        _with_another_secret(key),
        key[:-1],
        f"{key[:-1]}{'a' if key[-1] != 'a' else 'b'}",
    ):
        message = ask(server, "GET", "/users", wrong).error["message"]
        assert "`tunewarden admin-keys create`" in message, message
    guessed = _with_another_secret(server.make_key("owner"))
    message = server.request("GET", "/v1/models", key=guessed).error["message"]
    assert "`tunewarden keys create`" in message


def _refused(server: Server, admin_key: str, key: str) -> list[dict[str, Any]]:
    """What the holder of a key was refused, newest first."""
    query = f"actor_ids[]={key_format.present(key).id}&event_types[]=request.refused&limit=100"
    found: list[dict[str, Any]] = ask(server, "GET", f"/audit_logs?{query}", admin_key).json["data"]
    return found


def test_what_a_revoked_key_tries_is_recorded_on_every_route(server: Server) -> None:
    admin_key = administration.make_admin_key(server.app, "leaving")
    key = server.make_key("owner", organization="leaving")
    user = server.make_key("reader", organization="leaving")
    server.revoke_key(key)
    tried = (
        ("DELETE", "/v1/models/ft:a:b::c", "DELETE /v1/models/{model_id}"),
        ("GET", "/v1/files/file-ada@example.com/content", "GET /v1/files/{file_id}/content"),
        ("POST", "/v1/deletions", "POST /v1/deletions"),
        ("GET", "/v1/organization/users?limit=5", "GET /v1/organization/users"),
        ("GET", "/v1/ada@example.com", "GET"),
    )
    for method, path, operation in tried:
        reply = server.request(method, path, key=key)
        assert reply.status == 401
        event = _refused(server, admin_key, key)[0]
        assert event["request_id"] == reply.header("x-request-id")
        assert event["request.refused"]["operation"] == operation
        assert event["request.refused"]["id"] == key_format.present(key).id
        assert event["project"]["id"]
    assert len(_refused(server, admin_key, key)) == len(tried)
    server.request("GET", "/v1/models", key=user)
    assert _refused(server, admin_key, user) == [], "the control: nothing was refused"


def test_one_leaver_hides_no_attempt_of_another(server: Server) -> None:
    admin_key = administration.make_admin_key(server.app, "two-leave")
    loud, quiet = (server.make_key("owner", organization="two-leave") for _ in range(2))
    for key in (loud, quiet):
        server.revoke_key(key)
    for _ in range(LISTED_MAX + 5):
        assert server.request("DELETE", "/v1/models/ft:a:b::c", key=loud).status == 401
    assert server.request("DELETE", "/v1/models/ft:a:b::c", key=quiet).status == 401
    assert ask(server, "GET", "/users", quiet).status == 401
    assert len(_refused(server, admin_key, loud)) == LISTED_MAX
    assert len(_refused(server, admin_key, quiet)) == 2
    loud_id = key_format.present(loud).id
    sql = "SELECT counted FROM audit_refusals WHERE key_id = :key"
    wait_until(
        lambda: server.app.database.peek(sql, key=loud_id) == (5,), "the worker wrote its counts"
    )
    with server.app.database.write() as tx:
        tx.run("UPDATE audit_refusals SET hour_at = 0 WHERE key_id = :key", key=loud_id)
    query = f"resource_ids[]={loud_id}&event_types[]=request.refusals_counted"
    wait_until(
        lambda: len(ask(server, "GET", f"/audit_logs?{query}", admin_key).json["data"]) == 1,
        "the hour is over",
    )


def test_a_key_that_never_was_leaves_nothing_outside_administration(server: Server) -> None:
    key = server.make_key("owner", organization="nobody")
    sql = "SELECT COUNT(*) FROM audit_events WHERE organization_id = ''"
    before = server.app.database.peek(sql)
    made_up = key.replace(key.split("-")[2], "A" * len(key.split("-")[2]))
    for wrong in (made_up, "sk-other", ""):
        assert server.request("DELETE", "/v1/models/ft:a:b::c", key=wrong).status == 401
    assert server.app.database.peek(sql) == before

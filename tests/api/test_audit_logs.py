"""`client.admin.organization.audit_logs` of the stock SDK, the export, and what refused requests leave."""

import json
import time
import typing
from collections.abc import Iterator

import openai
import pytest
from openai.types.admin.organization import AuditLogListResponse
from tests.support import administration, uploading
from tests.support.administration import ask
from tests.support.servers import Server, WithoutTorch, serving
from tests.support.uploading import Field

from tunewarden.api.administration import audit_views
from tunewarden.audit import EventType, refusals
from tunewarden.audit.refusals import LISTED_MAX

SDK_TYPES = frozenset(typing.get_args(AuditLogListResponse.model_fields["type"].annotation))
FILE = (Field("purpose", b"user_data"), Field("file", b"x", "Ada Lovelace.txt"))


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("audited") / "data"
    with serving(data, local_base=True, kind=WithoutTorch) as server:
        yield server


@pytest.fixture(scope="module")
def admin_key(audited: Server) -> str:
    return administration.make_admin_key(audited.app)


@pytest.fixture(scope="module")
def admin(audited: Server, admin_key: str) -> openai.OpenAI:
    return administration.client(audited, admin_key)


def _types(events: list[AuditLogListResponse]) -> list[str]:
    return [event.type for event in events]


def test_who_deleted_a_model_is_found_by_the_stock_sdk(
    audited: Server, admin: openai.OpenAI
) -> None:
    model = audited.make_model().id
    deleted = audited.client().models.with_raw_response.delete(model)
    found = admin.admin.organization.audit_logs.list(
        event_types=["resource.deleted"], resource_ids=[model]
    )
    [event] = found.data
    assert event.model_extra is not None
    payload = event.model_extra["resource.deleted"]
    assert (payload["id"], payload["resource_type"]) == (model, "model")
    assert event.model_extra["request_id"] == deleted.headers["x-request-id"]
    assert event.actor is not None
    assert event.actor.api_key is not None
    assert event.actor.api_key.id == f"key_{audited.owner_key.split('-')[2]}"
    assert event.actor.api_key.type == "user"
    assert event.project is not None
    assert event.project.name == "Default project"
    assert abs(event.effective_at - time.time()) < 60
    user = event.actor.api_key.user
    assert user is not None
    assert user.id is not None
    by_user = admin.admin.organization.audit_logs.list(
        actor_ids=[user.id], resource_ids=[model], event_types=["resource.deleted"]
    )
    assert event.id in [one.id for one in by_user.data]


def test_pages_lead_through_all_events_in_both_directions(
    audited: Server, admin: openai.OpenAI, admin_key: str
) -> None:
    for _ in range(7):
        uploading.post(audited, "/v1/files", *FILE)
    logs = admin.admin.organization.audit_logs
    types: list[typing.Any] = ["file.created"]
    loose = openai.OpenAI(base_url=audited.url, api_key="unused", admin_api_key=admin_key)
    found = [one.id for one in loose.admin.organization.audit_logs.list(event_types=types, limit=3)]
    assert len(found) == len(set(found)) >= 7
    times = [one.effective_at for one in logs.list(event_types=["api_key.created"], limit=2)]
    assert times == sorted(times, reverse=True)
    path = "/audit_logs?event_types[]=file.created&limit=2"
    before = ask(audited, "GET", f"{path}&before={found[4]}", admin_key).json
    assert [one["id"] for one in before["data"]] == found[2:4]
    assert before["has_more"] is True
    first = ask(audited, "GET", f"{path}&before={found[1]}", admin_key).json
    assert [one["id"] for one in first["data"]] == found[:1]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (False, found[0], found[0])
    between = ask(audited, "GET", f"{path}&after={found[0]}&before={found[3]}", admin_key).json
    assert [one["id"] for one in between["data"]] == found[1:3]


def test_each_filter_keeps_what_it_names(audited: Server, admin_key: str) -> None:
    app = audited.app
    ada = administration.make_user(app, "Ada", email="ada@example.com")
    with app.database.read() as tx:
        rows = tx.rows("SELECT id, type, effective_at, project_id, actor_key_id FROM audit_events")
    known = {str(row[0]): row for row in rows}
    everything = _all(audited, admin_key, "")
    assert {one["id"] for one in everything} <= known.keys() | {one["id"] for one in everything}
    middle = sorted(one["effective_at"] for one in everything)[len(everything) // 2]
    for query, keeps in (
        (f"effective_at[gt]={middle}", lambda one: one["effective_at"] > middle),
        (f"effective_at[gte]={middle}", lambda one: one["effective_at"] >= middle),
        (f"effective_at[lt]={middle}", lambda one: one["effective_at"] < middle),
        (f"effective_at[lte]={middle}", lambda one: one["effective_at"] <= middle),
        (f"resource_ids[]={ada}", lambda one: one[one["type"]]["id"] == ada),
        (
            "event_types[]=user.added&event_types[]=api_key.created",
            lambda one: one["type"] in {"user.added", "api_key.created"},
        ),
    ):
        found = _all(audited, admin_key, query)
        assert [one["id"] for one in found] == [one["id"] for one in everything if keeps(one)]
    assert _all(audited, admin_key, "tenant_only=true") == []
    for cursor in ("", f"&before={everything[-1]['id']}"):
        none = ask(audited, "GET", f"/audit_logs?limit=0{cursor}", admin_key).json
        assert (none["data"], none["has_more"]) == ([], True)
    assert _all(audited, admin_key, "actor_emails[]=nobody@example.com") == []
    assert _all(audited, admin_key, "actor_emails[]=ada@example.com") == []


def _all(server: Server, key: str, query: str) -> list[dict[str, typing.Any]]:
    found: list[dict[str, typing.Any]] = []
    after = ""
    while True:
        page = ask(server, "GET", f"/audit_logs?limit=100&{query}{after}", key).json
        found += page["data"]
        if not page["has_more"]:
            return found
        after = f"&after={page['last_id']}"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=-1", "limit"),
        ("limit=101", "limit"),
        ("event_types[]=x y", "event_types[]"),
        ("resource_ids[]=" + "x" * 257, "resource_ids[]"),
        ("&".join(["actor_ids[]=a"] * 101), "actor_ids[]"),
        ("effective_at[gt]=soon", "effective_at[gt]"),
        ("effective_at[gt]=-1", "effective_at[gt]"),
        ("after=audit_log_nobody", "after"),
        ("before=audit_log_nobody", "before"),
        ("event_types=x y", "event_types[]"),
        ("resource_ids=" + "x" * 257, "resource_ids"),
        ("effective_at=5", "effective_at"),
        ("effective_at[foo]=5", "effective_at[foo]"),
        ("event_type=user.added", "event_type"),
        ("event_types[0]=user.added", "event_types[0]"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(
    audited: Server, admin_key: str, query: str, param: str
) -> None:
    reply = ask(audited, "GET", f"/audit_logs?{query.replace(' ', '%20')}", admin_key)
    assert reply.status == 400
    assert reply.error["param"] in {param, "0"}, reply.error


def test_lists_may_be_written_without_brackets(audited: Server, admin_key: str) -> None:
    user = administration.make_user(audited.app, "Grace")
    for query in (
        f"resource_ids={user}",
        f"resource_ids={user}&event_types=user.added",
        f"resource_ids[]=nobody&resource_ids={user}",
    ):
        [event] = _all(audited, admin_key, query)
        assert event["user.added"]["id"] == user
    lines = ask(audited, "GET", f"/audit_logs/export?resource_ids={user}", admin_key)
    assert len(lines.body.splitlines()) == 1
    for query in ("limit=5", "effective_at=5", "event_type=user.added"):
        assert ask(audited, "GET", f"/audit_logs/export?{query}", admin_key).status == 400


def test_another_organization_sees_none_of_it(audited: Server, admin_key: str) -> None:
    other = administration.make_admin_key(audited.app, "others")
    own = {one["id"] for one in _all(audited, admin_key, "")}
    foreign = {one["id"] for one in _all(audited, other, "")}
    assert own
    assert foreign
    assert own.isdisjoint(foreign)
    reply = ask(audited, "GET", f"/audit_logs?after={next(iter(own))}", other)
    assert reply.status == 400, "a foreign cursor is an unknown one"
    lines = ask(audited, "GET", "/audit_logs/export", other).body.splitlines()
    assert {json.loads(line)["id"] for line in lines} >= foreign
    assert own.isdisjoint(json.loads(line)["id"] for line in lines)


def test_the_export_has_each_event_once_as_a_line_and_no_text_of_a_client(
    audited: Server, admin_key: str
) -> None:
    uploading.post(audited, "/v1/files", *FILE)
    administration.make_user(audited.app, "Ada", email="lovelace@example.com")
    listed = _all(audited, admin_key, "")
    reply = ask(audited, "GET", "/audit_logs/export", admin_key)
    assert reply.header("content-type") == "application/jsonl"
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [one["id"] for one in lines][: len(listed)] == [one["id"] for one in listed][::-1]
    for text in (b"Lovelace", b"lovelace", b"@", b"Ada", b"127.0.0.1"):
        assert text not in reply.body
    some = ask(audited, "GET", "/audit_logs/export?event_types[]=file.created", admin_key).body
    assert {json.loads(line)["type"] for line in some.splitlines()} == {"file.created"}


def test_openais_types_are_those_of_the_sdk() -> None:
    ours = {one.value for one in EventType}
    assert ours & SDK_TYPES <= audit_views.OPENAI <= SDK_TYPES


def test_the_sdk_reads_openais_types_strictly(audited: Server, admin: openai.OpenAI) -> None:
    reader = audited.client(audited.make_key("reader"))
    with pytest.raises(openai.PermissionDeniedError):
        reader.models.delete(audited.make_model().id)
    wanted = sorted({one.value for one in EventType} & SDK_TYPES)
    found = list(admin.admin.organization.audit_logs.list(event_types=wanted, limit=100))  # type: ignore[arg-type]  # texts
    assert {"api_key.created", "user.added", "project.created"} <= set(_types(found))
    created = next(one for one in found if one.type == "api_key.created")
    assert created.api_key_created is not None
    assert created.api_key_created.data is not None
    added = next(one for one in found if one.type == "user.added")
    assert added.user_added is not None
    assert added.user_added.data is not None
    assert added.user_added.data.role in {"owner", "reader"}


def test_the_retention_period_has_a_least_and_is_audited(audited: Server, admin_key: str) -> None:
    assert ask(audited, "GET", "/audit_logs/retention", admin_key).json["days"] is None
    for wrong in (89, 0, -1, 36_501, "90", True, 90.0):
        reply = ask(audited, "POST", "/audit_logs/retention", admin_key, {"days": wrong})
        assert (reply.status, reply.error["param"]) == (400, "days")
    for days in (90, 365, None):
        reply = ask(audited, "POST", "/audit_logs/retention", admin_key, {"days": days})
        assert reply.json == {"object": "organization.audit_retention", "days": days}
        assert ask(audited, "GET", "/audit_logs/retention", admin_key).json["days"] == days
    told = _all(audited, admin_key, "event_types[]=audit_log.retention.updated")
    assert [one[one["type"]]["days"] for one in told] == [None, 365, 90]


def test_a_request_without_permission_is_an_event(audited: Server, admin_key: str) -> None:
    reader = audited.make_key("reader")
    upload = {"bytes": 1, "filename": "Ada.txt", "mime_type": "text/plain", "purpose": "user_data"}
    refused = audited.post("/v1/uploads", upload, key=reader)
    assert refused.status == 403
    [event] = _all(audited, admin_key, f"actor_ids[]=key_{reader.split('-')[2]}")
    assert event["type"] == "request.refused"
    assert event["request_id"] == refused.header("x-request-id")
    assert event["request.refused"] == {
        "id": "",
        "operation": "POST /v1/uploads",
        "code": "missing_scope",
    }


def test_what_a_client_writes_in_place_of_an_id_is_not_recorded(
    audited: Server, admin_key: str
) -> None:
    key = audited.make_key("reader")
    for path in ("/v1/models/ada@example.com", "/v1/files/ada%40example.com"):
        audited.request("DELETE", path, key=key)
    found = _all(audited, admin_key, f"actor_ids[]=key_{key.split('-')[2]}")
    assert [one["type"] for one in found] == ["deletion.refused"] * 2, "each once"
    assert {one["deletion.refused"]["id"] for one in found} == {""}


def test_wrong_keys_at_administration_are_events(audited: Server, admin_key: str) -> None:
    own = audited.owner_key
    reply = ask(audited, "GET", "/users", own)
    assert reply.status == 403
    [event] = _all(
        audited, admin_key, f"resource_ids[]=key_{own.split('-')[2]}&event_types[]=request.refused"
    )
    assert event["actor"]["api_key"]["id"] == event["request.refused"]["id"]
    assert event["request_id"] == reply.header("x-request-id")
    for key in (None, f"{admin_key[:-1]}_", "garbage"):
        assert ask(audited, "GET", "/users", key).status == 401
    with audited.app.database.read() as tx:
        rows = tx.rows(
            "SELECT resource_id FROM audit_events WHERE organization_id = '' AND type = 'request.refused'"
        )
    assert len(rows) == 3
    assert {row[0] for row in rows} == {""}


def test_beyond_a_hundred_an_hour_refusals_are_counted(audited: Server, admin_key: str) -> None:
    reader = audited.make_key("reader")
    key_id = f"key_{reader.split('-')[2]}"
    for _ in range(LISTED_MAX + 25):
        assert audited.request("DELETE", f"/v1/models/{'x' * 8}", key=reader).status == 404
    assert len(_all(audited, admin_key, f"actor_ids[]={key_id}")) == LISTED_MAX
    sql = "SELECT listed, counted FROM audit_refusals WHERE key_id = :key"
    deadline = time.monotonic() + 20
    while audited.app.database.peek(sql, key=key_id) != (LISTED_MAX, 25):
        assert time.monotonic() < deadline, audited.app.database.peek(sql, key=key_id)
        time.sleep(0.1)
    app = audited.app
    with app.database.write() as tx:
        tx.run("UPDATE audit_refusals SET hour_at = 0 WHERE key_id = :key", key=key_id)
    refusals.close_hours(app.database, app.clock)
    [event] = _all(audited, admin_key, "event_types[]=request.refusals_counted")
    assert event["request.refusals_counted"]["id"] == key_id
    assert event["request.refusals_counted"]["count"] == 25

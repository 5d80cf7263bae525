"""Many deletions by one request, as the stock SDK sends it: by ids, by a filter, resumed, and stopped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.cli import in_process
from tests.support import fine_tuning_rows
from tests.support.bulk import DAY_MICROS, ask, codes, make_older, old_model, outcomes, streamed
from tests.support.servers import LOCAL_BASE, ORGANIZATION, Server, WithoutTorch, serving

from tunewarden.finetuning.states import State
from tunewarden.ids import token


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("bulk") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=2) as running:
        yield running


@pytest.fixture
def suffix() -> str:
    return f"s{token(8)}"


def test_ids_are_deleted_and_what_is_blocked_or_unknown_is_answered_by_itself(
    server: Server,
) -> None:
    models = [server.make_model().id for _ in range(40)]
    held, protected, target = models[3], models[11], models[35]
    server.post("/v1/holds", {"model": held, "reason": "a dispute"})
    server.post(f"/v1/models/{protected}", {"protected": True})
    server.post("/v1/aliases", {"name": f"a{token(6)}", "model": target})
    foreign = server.make_model(key=server.make_key("owner", organization="elsewhere")).id
    client = server.client()
    file = client.files.create(file=("a.txt", b"x"), purpose="user_data").id
    sent = [*models, foreign, "ft:nobody", LOCAL_BASE, file]
    found, summary = ask(client, "/deletions", {"ids": sent})
    said = outcomes(found)
    assert list(said) == sent
    assert codes(found, held) == {"on_hold"}
    assert codes(found, protected) == {"protected"}
    assert codes(found, target) == {"alias_target"}
    assert codes(found, LOCAL_BASE) == {"base_model_not_deletable"}
    spared = {held, protected, target}
    assert {one for one, outcome in said.items() if outcome == "spared"} == spared
    assert said[foreign] == said["ft:nobody"] == "not_found"
    assert said[LOCAL_BASE] == "refused"
    deleted = {one for one, outcome in said.items() if outcome == "deleted"}
    assert deleted == {*models, file} - spared
    assert summary["counts"] == {"deleted": 38, "not_found": 2, "refused": 1, "spared": 3}
    assert (summary["left"], summary["stopped"], summary["has_more"]) == (0, None, False)
    left = {one.id for one in client.models.list()}
    assert left & set(models) == spared
    for one in found:
        if one["outcome"] == "deleted":
            receipt = server.get(f"/v1/deletions/{one['deletion']}/receipt", key=server.owner_key)
            assert receipt.status == 200


def test_a_filter_chooses_by_age_name_and_order_and_a_dry_run_says_why(
    server: Server, suffix: str
) -> None:
    old = [old_model(server, 100 - number, suffix) for number in range(4)]
    young = server.make_model(suffix=suffix).id
    other = old_model(server, 100, f"{suffix}-other")
    held = old_model(server, 200, suffix)
    server.post("/v1/holds", {"model": held, "reason": "a dispute"})
    client = server.client()
    body = {"filter": {"suffix": suffix, "older_than_days": 90, "keep_latest": 2}}
    planned, summary = ask(client, "/deletions", body, dry_run=True)
    said = outcomes(planned)
    assert set(said) == {*old, young, held}
    # `held` and `young` were registered last: they are the two latest.
    assert {one for one, outcome in said.items() if outcome == "delete"} == set(old)
    assert codes(planned, young) >= {"keep_latest", "too_young"}
    assert codes(planned, old[0]) == {"older_than", "not_latest"}
    assert summary["dry_run"] is True
    assert len(list(client.models.list())) >= 7, "a dry run deletes nothing"
    done, summary = ask(client, "/deletions", body)
    assert outcomes(done) == dict.fromkeys(old, "deleted")
    assert summary["counts"] == {"deleted": 4}
    left = {one.id for one in client.models.list()}
    assert {young, other, held} <= left
    assert not left & set(old)


@pytest.mark.parametrize("by", ["ids", "rule"])
def test_each_deletion_and_its_events_are_found_by_the_id_of_the_request(
    server: Server, suffix: str, by: str
) -> None:
    one = old_model(server, 100, suffix)
    path, body = "/v1/deletions", {"ids": [one]}
    if by == "rule":
        rule = {"action": "delete", "suffix": suffix, "older_than_days": 90, "notice_days": 0}
        made = server.post("/v1/retention/rules", rule)
        path, body = f"/v1/retention/rules/{made.json['id']}/run", {}
    asked = server.post(path, body)
    assert '"deleted"' in asked.body.decode()
    request_id = asked.header("x-request-id")
    with server.app.database.read() as tx:
        found = tx.rows(
            "SELECT e.type, d.request_id FROM audit_events e JOIN artifacts a ON a.id = e.resource_id"
            " JOIN deletions d ON d.artifact_n = a.n WHERE a.id = :model AND e.request_id = :id",
            model=one,
            id=request_id,
        )
    assert set(found) == {("deletion.requested", request_id), ("resource.deleted", request_id)}


def test_what_was_seen_is_deleted_or_nothing(server: Server, suffix: str) -> None:
    one = old_model(server, 100, suffix)
    client = server.client(max_retries=0)
    body = {"filter": {"suffix": suffix, "older_than_days": 90}}
    _, seen = ask(client, "/deletions", body, dry_run=True)
    two = old_model(server, 100, suffix)
    headers = {"If-Match": f'"{seen["fingerprint"]}"'}
    for path in ("/deletions", "/deletions?dry_run=true"):
        with pytest.raises(openai.APIStatusError) as caught:
            client.post(path, cast_to=httpx2.Response, body=body, options={"headers": headers})
        assert (caught.value.status_code, caught.value.code) == (412, "plan_changed")
    assert {one, two} <= {model.id for model in client.models.list()}
    _, seen = ask(client, "/deletions", body, dry_run=True)
    headers = {"If-Match": seen["fingerprint"]}
    answer = client.post(
        "/deletions", cast_to=httpx2.Response, body=body, options={"headers": headers}
    )
    assert json.loads(answer.text.splitlines()[-1])["counts"] == {"deleted": 2}


@pytest.mark.parametrize("by", ["ids", "filter"])
def test_a_fingerprint_covers_what_goes_with_each_model(
    server: Server, suffix: str, by: str
) -> None:
    """A model's checkpoints go with it: one that came since was not seen."""
    app, key = server.app, server.owner_key
    job = fine_tuning_rows.make_job(app, key, state=State.SUCCEEDED)
    model = fine_tuning_rows.make_model(app, key, job_id=job)
    with app.database.write() as tx:
        tx.run("UPDATE models SET suffix = :suffix WHERE n = :n", suffix=suffix, n=model.n)
    body: dict[str, Any] = {"ids": [model.id]} if by == "ids" else {"filter": {"suffix": suffix}}
    client = server.client(max_retries=0)
    (planned,), seen = ask(client, "/deletions", body, dry_run=True)
    assert seen["counts"] == {"delete": 1}
    assert planned["checkpoints"] == []
    checkpoint = fine_tuning_rows.make_checkpoint(app, key, job, 1, {})
    (planned,), _ = ask(client, "/deletions", body, dry_run=True)
    assert planned["checkpoints"] == [checkpoint.id]
    choose = [model.id] if by == "ids" else ["--suffix", suffix]
    said = f"With its checkpoints: {checkpoint.id}."
    assert said in in_process.on(server, "deletions", "create", *choose, "--dry-run").stdout
    assert said in server.cli("deletions", "create", *choose, stdin="no\n").stderr
    headers = {"If-Match": seen["fingerprint"]}
    with pytest.raises(openai.APIStatusError) as caught:
        client.post("/deletions", cast_to=httpx2.Response, body=body, options={"headers": headers})
    assert (caught.value.status_code, caught.value.code) == (412, "plan_changed")
    assert server.get(f"/v1/models/{model.id}", key=key).status == 200


def test_a_request_that_broke_off_goes_on_with_its_key(server: Server, suffix: str) -> None:
    models = [old_model(server, 100, suffix) for _ in range(330)]
    body = {"filter": {"suffix": suffix, "older_than_days": 90}}
    client, key = server.client(max_retries=0), f"bulk-{suffix}"
    with streamed(server, body, api_key=server.owner_key, key=key) as results:
        assert next(results)["outcome"] == "deleted"
    first = {model.id for model in client.models.list()} & set(models)
    # Younger than what was chosen then: it is not part of the request.
    late = old_model(server, 100, suffix)
    found, summary = ask(client, "/deletions", body, key=key)
    assert outcomes(found) == dict.fromkeys(models, "deleted")
    assert summary["counts"] == {"deleted": 330}
    again, repeated = ask(client, "/deletions", body, key=key)
    assert (again, repeated) == (found, summary), "a retry gets the first answer"
    assert late in {model.id for model in client.models.list()}
    assert len(first) > 0, "nothing was left to resume"
    requested = server.get("/v1/deletions?limit=1000", key=server.owner_key).json["data"]
    counted = [one["model"] for one in requested if one.get("model") in set(models)]
    assert sorted(counted) == sorted(models), "each has one deletion"


@pytest.mark.parametrize("by", ["ids", "filter"])
@pytest.mark.parametrize("is_seen", [True, False])
def test_what_a_request_spared_stays_spared_when_it_is_sent_again(
    server: Server, suffix: str, by: str, *, is_seen: bool
) -> None:
    held, protected, free = (server.make_model(suffix=suffix).id for _ in range(3))
    hold = server.post("/v1/holds", {"model": held, "reason": "a dispute"}).json["id"]
    server.post(f"/v1/models/{protected}", {"protected": True})
    body: dict[str, Any] = {"filter": {"suffix": suffix}}
    if by == "ids":
        body = {"ids": [held, protected, "ft:nobody", LOCAL_BASE, free]}
    client, sent = server.client(max_retries=0), {"key": f"bulk-{suffix}"}
    if is_seen:
        sent["if_match"] = ask(client, "/deletions", body, dry_run=True)[1]["fingerprint"]
    first = ask(client, "/deletions", body, **sent)
    assert outcomes(first[0])[held] == outcomes(first[0])[protected] == "spared"
    assert first[1]["left"] == 0
    server.post(f"/v1/holds/{hold}/lift", {"reason": "settled"})
    server.post(f"/v1/models/{protected}", {"protected": False})
    assert ask(client, "/deletions", body, **sent) == first
    assert {held, protected} <= {one.id for one in client.models.list()}


def test_a_key_is_not_forgotten_for_those_that_came_after_it(server: Server, suffix: str) -> None:
    owner = server.make_key("owner", organization=f"many-{suffix}")
    client = server.client(owner, max_retries=0)
    organization = _organization_of(server, owner)
    body = {"filter": {"suffix": suffix, "older_than_days": 90}}
    first = ask(client, "/deletions", body, key=suffix)
    _keep_more(server, organization, 150, days_ago=1)
    ask(client, "/deletions", {"ids": ["ft:nobody"]}, key="the next")
    late = server.make_model(key=owner, suffix=suffix).id
    make_older(server.app, late, 100)
    assert ask(client, "/deletions", body, key=suffix) == first
    assert late in {model.id for model in client.models.list()}
    _keep_more(server, organization, 10_000, days_ago=1)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "/deletions", body, key="one too many")
    assert caught.value.code == "too_many_bulk_deletions"
    assert late in {model.id for model in client.models.list()}
    with server.app.database.write() as tx:
        tx.run(
            "UPDATE bulk_deletions SET requested_at = requested_at - :days WHERE organization_id = :organization",
            days=31 * DAY_MICROS,
            organization=organization,
        )
        tx.run(
            "DELETE FROM bulk_deletions WHERE organization_id = :organization AND n NOT IN"
            " (SELECT n FROM bulk_deletions WHERE organization_id = :organization ORDER BY n LIMIT 10005)",
            organization=organization,
        )
    assert outcomes(ask(client, "/deletions", body, key="one more")[0]) == {late: "deleted"}


def _organization_of(server: Server, key: str) -> str:
    return fine_tuning_rows.caller_of(server.app, key).organization_id


def _keep_more(server: Server, organization: str, count: int, *, days_ago: int) -> None:
    """Rows of bulk deletions with keys, as so many requests leave them."""
    with server.app.database.write() as tx:
        tx.run(
            "INSERT INTO bulk_deletions (id, organization_id, requested_by, idempotency_key, request_sha256,"
            " requested_at, has_more) WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < :count)"
            " SELECT :name || i, :organization, 'key', :name || i, 'x', :at, 0 FROM c",
            count=count,
            name=f"{organization}-{count}-",
            organization=organization,
            at=tx.now_micros - days_ago * DAY_MICROS,
        )


def test_an_idempotency_key_belongs_to_one_body(server: Server) -> None:
    model, other = server.make_model().id, server.make_model().id
    key = f"bulk-{token(8)}"
    client = server.client(max_retries=0)
    ask(client, "/deletions", {"ids": [model]}, key=key)
    with pytest.raises(openai.ConflictError) as caught:
        ask(client, "/deletions", {"ids": [other]}, key=key)
    assert caught.value.code == "idempotency_key_reused"
    assert caught.value.response.headers["x-should-retry"] == "false"
    found, _ = ask(client, "/deletions", {"ids": [model]}, key=key)
    assert outcomes(found) == {model: "deleted"}
    assert client.models.retrieve(other).id == other


def test_a_lost_role_stops_the_rest(server: Server) -> None:
    models = [server.make_model().id for _ in range(200)]
    key = server.make_key("owner", organization=ORGANIZATION)
    with streamed(server, {"ids": models}, api_key=key) as results:
        first = next(results)
        server.revoke_key(key)
        *done, summary = [first, *results]
    assert summary["stopped"] is not None
    assert 0 < len(done) < len(models)
    assert summary["left"] == len(models) - len(done)
    left = {one.id for one in server.client().models.list()}
    assert set(models[len(done) :]) <= left
    assert not left & set(models[: len(done)])


def test_a_reader_deletes_nothing_and_bad_requests_are_refused(server: Server) -> None:
    model = server.make_model().id
    reader = server.client(server.make_key("reader"), max_retries=0)
    for dry_run in (False, True):
        with pytest.raises(openai.PermissionDeniedError):
            ask(reader, "/deletions", {"ids": [model]}, dry_run=dry_run)
    bad: list[tuple[object, str | None]] = [
        ({}, "ids"),
        ({"ids": []}, "ids"),
        ({"ids": [model, model]}, "ids"),
        ({"ids": [""]}, "ids"),
        ({"ids": ["x"] * 10_001}, "ids"),
        ({"filter": {}}, "filter"),
        ({"ids": [model], "filter": {"base": LOCAL_BASE}}, "ids"),
        ({"filter": {"older_than_days": 0}}, "filter.older_than_days"),
        ({"filter": {"suffix": "[a-z]"}}, "filter.suffix"),
        ({"filter": {"unknown": 1}}, None),
    ]
    for body, param in bad:
        answer = server.post("/v1/deletions", body)
        assert answer.status == 400, body
        if param is not None:
            assert answer.json["error"]["param"] == param, body
    assert server.post("/v1/deletions?force=true", {"ids": [model]}).status == 400
    assert server.client().models.retrieve(model).id == model


def test_a_model_that_was_used_lately_is_spared(server: Server, suffix: str) -> None:
    used, unused = (old_model(server, 100, suffix) for _ in range(2))
    with server.app.database.write() as tx:
        tx.run(
            "INSERT INTO usage_series (organization_id, key_id, user_id, project_id, model_id, kind, last_used_at)"
            " SELECT organization_id, 'k', 'u', project_id, id, 'completions', :now FROM artifacts WHERE id = :id",
            now=tx.now_micros,
            id=used,
        )
    body = {"filter": {"suffix": suffix, "unused_for_days": 30}}
    planned, _ = ask(server.client(), "/deletions", body, dry_run=True)
    assert codes(planned, used) == {"in_use"}
    found, _ = ask(server.client(), "/deletions", body)
    assert outcomes(found) == {unused: "deleted"}


def test_the_pages_loop_deletes_what_is_archived_too_and_meets_no_error(
    server: Server, suffix: str
) -> None:
    archived, young = old_model(server, 100, suffix), server.make_model(suffix=suffix).id
    server.post(f"/v1/models/{archived}", {"archived": True})
    server.post("/v1/aliases", {"name": f"ft:{token(6)}", "model": young})
    client = server.client()
    threshold = server.app.clock.now().timestamp() - (90 * 24 * 60 * 60)
    deleted = [
        client.models.delete(model.id).id
        for model in client.models.list()
        if model.id.startswith("ft:")
        and model.id.split(":")[3] == suffix
        and model.created < threshold
    ]
    assert deleted == [archived]
    make_older(server.app, young, 100)
    found, _ = ask(client, "/deletions", {"filter": {"suffix": suffix, "older_than_days": 90}})
    assert codes(found, young) == {"alias_target"}


def test_the_command_shows_asks_for_a_sentence_and_deletes_what_it_showed(
    server: Server, suffix: str
) -> None:
    old = [old_model(server, 100, suffix) for _ in range(2)]
    young = server.make_model(suffix=suffix).id
    choose = ("deletions", "create", "--suffix", f"{suffix[:-1]}?", "--older-than", "90d")
    planned = in_process.on(server, *choose, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    *rows, summary = map(json.loads, planned.stdout.splitlines())
    assert outcomes(rows) == {young: "spared"} | dict.fromkeys(old, "delete")
    assert summary["counts"] == {"delete": 2, "spared": 1}
    refused = server.cli(*choose, stdin="delete 3 models\n")
    assert refused.returncode == 1
    assert {*old, young} <= {one.id for one in server.client().models.list()}
    done = server.cli(*choose, stdin="delete 2 models\n")
    assert done.returncode == 0, done.stderr
    assert {line.split("\t")[1] for line in done.stdout.splitlines()} == set(old)
    assert "2 deleted" in done.stderr
    nothing = in_process.on(server, *choose)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing to delete" in nothing.stderr
    server.post(f"/v1/models/{young}", {"protected": True})
    assert in_process.on(server, "deletions", "create", young, "--yes").returncode == 5
    assert in_process.on(server, "deletions", "create", "ft:nobody", "--yes").returncode == 3
    assert in_process.on(server, "deletions", "create").returncode == 2
    assert in_process.on(server, "deletions", "create", young, "--base", LOCAL_BASE).returncode == 2

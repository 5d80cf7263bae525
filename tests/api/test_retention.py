"""Retention rules as the stock SDK sends them: previewed, announced, run by hand and by themselves, and paused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.cli import in_process
from tests.support import administration, fine_tuning_rows, webhook_rows
from tests.support.bulk import DAY_MICROS, ask, codes, get, make_older, old_model, outcomes
from tests.support.servers import LOCAL_BASE, Server, WithoutTorch, serving, wait_until

from tunewarden.finetuning.states import State
from tunewarden.ids import token
from tunewarden.webhooks.event_types import WebhookEventType


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("retention") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=2) as running:
        yield running


@pytest.fixture
def suffix() -> str:
    return f"s{token(8)}"


def make_rule(server: Server, key: str | None = None, **fields: object) -> str:
    made = server.client(key).post(
        "/retention/rules", cast_to=object, body={"action": "delete", **fields}
    )
    assert isinstance(made, dict)
    assert made["object"] == "retention.rule"
    return str(made["id"])


def preview(server: Server, rule: str) -> list[dict[str, Any]]:
    return get(server.client(), f"/retention/rules/{rule}/preview")[0]


def run(
    server: Server, rule: str, if_match: str | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    return ask(server.client(max_retries=0), f"/retention/rules/{rule}/run", if_match=if_match)


def is_there(server: Server, model: str) -> bool:
    return server.get(f"/v1/models/{model}", key=server.owner_key).status == 200


def test_a_preview_has_a_reason_for_each_row_and_a_run_does_what_it_said(
    server: Server, suffix: str
) -> None:
    used = old_model(server, 100, suffix)
    with server.app.database.write() as tx:
        tx.run(
            "INSERT INTO usage_series (organization_id, key_id, user_id, project_id, model_id, kind, last_used_at)"
            " SELECT organization_id, 'k', 'u', project_id, id, 'completions', :at FROM artifacts WHERE id = :id",
            at=tx.now_micros - DAY_MICROS,
            id=used,
        )
    old, held, protected, aliased = (old_model(server, 100, suffix) for _ in range(4))
    server.post("/v1/holds", {"model": held, "reason": "a dispute"})
    server.post(f"/v1/models/{protected}", {"protected": True})
    server.post("/v1/aliases", {"name": f"a{token(6)}", "model": aliased})
    young = server.make_model(suffix=suffix).id
    latest = old_model(server, 100, suffix)
    other = old_model(server, 100, f"{suffix}-other")
    rule = make_rule(
        server,
        suffix=suffix,
        older_than_days=90,
        unused_for_days=30,
        keep_latest=1,
        notice_days=0,
    )
    said = preview(server, rule)
    assert outcomes(said) == {
        old: "delete",
        **dict.fromkeys((used, held, protected, aliased, young, latest), "spared"),
    }
    assert codes(said, old) == {"older_than", "unused_for", "not_latest"}
    assert codes(said, used) == {"in_use"}
    assert codes(said, held) == {"on_hold"}
    assert codes(said, protected) == {"protected"}
    assert codes(said, aliased) == {"alias_target"}
    assert codes(said, young) == {"too_young", "in_use"}
    assert codes(said, latest) == {"keep_latest"}
    assert is_there(server, old), "a preview changes nothing"
    _, planned = get(server.client(), f"/retention/rules/{rule}/preview")
    with pytest.raises(openai.APIStatusError) as refused:
        run(server, rule, if_match='"another preview"')
    assert (refused.value.status_code, refused.value.code) == (412, "plan_changed")
    assert is_there(server, old)
    seen = planned["fingerprint"]
    path = f"/retention/rules/{rule}/run"
    _, looked = ask(server.client(), path, if_match=seen, dry_run="true")
    assert (looked["dry_run"], looked["fingerprint"]) == (True, seen)
    done, summary = run(server, rule, if_match=seen)
    assert outcomes(done) == outcomes(said) | {old: "deleted"}
    assert summary["counts"] == {"deleted": 1, "spared": 6}
    assert not is_there(server, old)
    assert all(is_there(server, one) for one in (used, held, protected, aliased, young, latest))
    assert is_there(server, other), "another suffix is no business of the rule"
    [deletion] = [one["deletion"] for one in done if one["outcome"] == "deleted"]
    shown = server.get(f"/v1/deletions/{deletion}", key=server.owner_key).json
    who = f"key_{server.owner_key.split('-')[2]}"
    assert shown["requested_by"] == who, "not the server, which runs it when it is due"
    receipt = server.get(f"/v1/deletions/{deletion}/receipt", key=server.owner_key).json
    assert receipt["disclosure"]["requestedBy"] == who
    again, _ = run(server, rule)
    assert outcomes(again) == {one: "spared" for one in outcomes(said) if one != old}


def test_an_enabled_rule_acts_by_itself_and_for_its_organization(
    server: Server, suffix: str
) -> None:
    """Not for who made it: that key is revoked, and the rule goes on."""
    key = server.make_key("owner")
    rule = make_rule(server, key, suffix=suffix, older_than_days=90, notice_days=0)
    server.revoke_key(key)
    old, young = old_model(server, 100, suffix), server.make_model(suffix=suffix).id
    foreign_key = server.make_key("owner", organization="elsewhere")
    foreign = server.make_model(key=foreign_key, suffix=suffix).id
    make_older(server.app, foreign, 100)
    assert is_there(server, old), "a new rule does nothing"
    changed = server.post(f"/v1/retention/rules/{rule}", {"enabled": True}).json
    assert changed["enabled"] is True
    wait_until(lambda: not is_there(server, old), "the rule runs")
    assert is_there(server, young)
    assert server.get(f"/v1/models/{foreign}", key=foreign_key).status == 200
    shown = server.get(f"/v1/retention/rules/{rule}", key=server.owner_key).json
    assert shown["last_run_at"] is not None
    with server.app.database.read() as tx:
        row = tx.row(
            "SELECT actor_key_id, details FROM audit_events WHERE resource_id = :id"
            " AND type = 'deletion.requested'",
            id=old,
        )
    assert row is not None
    assert row[0] is None
    assert rule in row[1]


def test_a_deletion_is_announced_and_not_done_before(server: Server, suffix: str) -> None:
    rule = make_rule(server, suffix=suffix, older_than_days=90)
    soon, later, overdue = (old_model(server, age, suffix) for age in (85, 80, 200))
    said = preview(server, rule)
    assert outcomes(said) == {soon: "announce", later: "spared", overdue: "announce"}
    shown = server.get(f"/v1/models/{overdue}", key=server.owner_key).json
    assert "deletion_due_at" not in shown
    done, _ = run(server, rule)
    assert outcomes(done) == {soon: "announced", later: "spared", overdue: "announced"}
    due = {one["model"]: one["due_at"] for one in done if "due_at" in one}
    now = server.app.clock.now().timestamp()
    assert due[overdue] == pytest.approx(now + 7 * 86_400, abs=60)
    assert due[soon] == pytest.approx(now + 7 * 86_400, abs=60)
    listed = server.client().models.retrieve(overdue).model_extra
    # Only what an enabled rule announced will happen.
    assert listed is not None
    assert "deletion_due_at" not in listed
    server.post(f"/v1/retention/rules/{rule}", {"enabled": True})
    shown = server.get(f"/v1/models/{overdue}", key=server.owner_key).json
    assert shown["deletion_due_at"] == due[overdue]
    server.post(f"/v1/retention/rules/{rule}", {"enabled": False})
    assert outcomes(run(server, rule)[0])[overdue] == "waiting"
    assert is_there(server, overdue)
    # A hold withdraws it, and the days begin anew.
    hold = server.post("/v1/holds", {"model": soon, "reason": "x"}).json["id"]
    assert outcomes(run(server, rule)[0])[soon] == "spared"
    server.post(f"/v1/holds/{hold}/lift", {})
    assert outcomes(run(server, rule)[0])[soon] == "announced"
    with server.app.database.write() as tx:
        tx.run("UPDATE retention_notices SET due_at = due_at - :days", days=8 * DAY_MICROS)
    done, _ = run(server, rule)
    # `soon` is 85 days old: its notice is over, its age is not reached.
    assert outcomes(done) == {soon: "announced", later: "spared", overdue: "deleted"}
    assert not is_there(server, overdue)
    with server.app.database.read() as tx:
        assert (
            tx.rows(
                "SELECT t.model_n FROM retention_notices t JOIN artifacts a ON a.n = t.model_n WHERE a.id = :id",
                id=overdue,
            )
            == []
        )
    # What is changed announces anew.
    server.post(f"/v1/retention/rules/{rule}", {"notice_days": 3})
    assert outcomes(preview(server, rule))[soon] == "spared"


def test_webhooks_are_queued_with_what_a_rule_announces_and_does(
    server: Server, suffix: str
) -> None:
    webhook_rows.make_endpoint(
        server.app,
        server.owner_key,
        WebhookEventType.RETENTION_UPCOMING,
        WebhookEventType.MODEL_ARCHIVED,
    )
    announced, archived = old_model(server, 100, suffix), old_model(server, 100, f"{suffix}-a")
    rule = make_rule(server, suffix=suffix, older_than_days=90)
    assert outcomes(run(server, rule)[0]) == {announced: "announced"}
    assert outcomes(run(server, rule)[0]) == {announced: "waiting"}, "it is announced once"
    archiving = make_rule(server, suffix=f"{suffix}-a", action="archive", older_than_days=90)
    run(server, archiving)
    with server.app.database.read() as tx:
        rows = tx.rows("SELECT event_type, data FROM webhook_deliveries ORDER BY queued_at")
    found = [
        (kind, json.loads(data)) for kind, data in rows if announced in data or archived in data
    ]
    assert found == [
        ("retention.upcoming", {"id": announced, "rule_id": rule}),
        ("model.archived", {"id": archived}),
    ]


def test_a_rule_archives_and_undoing_that_is_not_undone_at_once(
    server: Server, suffix: str
) -> None:
    rule = make_rule(server, suffix=suffix, action="archive", unused_for_days=30)
    old, aliased = old_model(server, 100, suffix), old_model(server, 100, suffix)
    server.post("/v1/aliases", {"name": f"a{token(6)}", "model": aliased})
    assert outcomes(preview(server, rule)) == {old: "archive", aliased: "spared"}
    done, _ = run(server, rule)
    assert outcomes(done) == {old: "archived", aliased: "spared"}
    assert server.get(f"/v1/models/{old}", key=server.owner_key).json["archived"] is True
    assert codes(preview(server, rule), old) == {"archived"}


def test_a_models_checkpoints_go_with_it_and_are_no_rows_of_their_own(
    server: Server, suffix: str
) -> None:
    model, checkpoint = old_model(server, 100, suffix), old_model(server, 100, suffix)
    app = server.app
    job = fine_tuning_rows.make_job(app, server.owner_key, state=State.SUCCEEDED)
    job_n = fine_tuning_rows.job_n(app, job)
    with app.database.write() as tx:
        for one, step in ((model, None), (checkpoint, 3)):
            tx.run(
                "UPDATE models SET job_n = :job, step = :step"
                " WHERE n = (SELECT n FROM artifacts WHERE id = :id)",
                job=job_n,
                step=step,
                id=one,
            )
    rule = make_rule(server, suffix=suffix, older_than_days=90, notice_days=0)
    (said,) = preview(server, rule)
    assert (said["model"], said["outcome"], said["checkpoints"]) == (model, "delete", [checkpoint])
    shown = in_process.on(server, "retention", "preview", rule).stdout
    assert f"With its checkpoints: {checkpoint}." in shown
    hold = server.post("/v1/holds", {"model": checkpoint, "reason": "x"}).json["id"]
    assert codes(preview(server, rule), model) == {"on_hold"}
    server.post(f"/v1/holds/{hold}/lift", {})
    run(server, rule)
    assert not is_there(server, model)
    assert not is_there(server, checkpoint)


def test_owners_make_change_list_and_delete_rules(server: Server) -> None:
    client = server.client()
    rule = make_rule(server, base=LOCAL_BASE, older_than_days=90)
    made = server.get(f"/v1/retention/rules/{rule}", key=server.owner_key).json
    assert (made["notice_days"], made["enabled"], made["last_run_at"]) == (7, False, None)
    changed = server.post(
        f"/v1/retention/rules/{rule}", {"base": None, "keep_latest": 3, "notice_days": 0}
    ).json
    assert (changed["base"], changed["keep_latest"], changed["older_than_days"]) == (None, 3, 90)
    listed = server.get("/v1/retention/rules", key=server.owner_key).json["data"]
    assert rule in {one["id"] for one in listed}
    foreign = server.make_key("owner", organization="elsewhere")
    reader = server.make_key("reader")
    no_delete = server.make_key("owner", "api.retention.write", "api.retention.read")
    for key, status in ((foreign, 404), (reader, 403), (no_delete, 403)):
        path = f"/v1/retention/rules/{rule}"
        assert server.post(path, {"enabled": True}, key=key).status == status
        assert server.post(f"{path}/run", {}, key=key).status == status
        assert server.request("DELETE", path, key=key).status == status
    assert server.get(f"/v1/retention/rules/{rule}", key=no_delete).status == 200
    assert server.get(f"/v1/retention/rules/{rule}/preview", key=reader).status == 403
    gone = client.delete(f"/retention/rules/{rule}", cast_to=object)
    assert gone == {"id": rule, "object": "retention.rule.deleted", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        client.get(f"/retention/rules/{rule}", cast_to=object)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"action": "delete"}, "older_than_days"),
        ({"action": "erase", "older_than_days": 1}, "action"),
        ({"action": "delete", "older_than_days": 0}, "older_than_days"),
        ({"action": "delete", "unused_for_days": 1001}, "unused_for_days"),
        ({"action": "delete", "keep_latest": -1}, "keep_latest"),
        ({"action": "delete", "older_than_days": 1, "notice_days": 366}, "notice_days"),
        ({"action": "archive", "older_than_days": 1, "notice_days": 1}, "notice_days"),
        ({"action": "delete", "older_than_days": 1, "suffix": "(a|b)"}, "suffix"),
        ({"action": "delete", "older_than_days": 1, "base": "nobody"}, "base"),
        ({"action": "delete", "older_than_days": 1, "project": "proj_nobody"}, "project"),
    ],
)
def test_a_rule_that_says_nothing_or_nonsense_is_refused(
    server: Server, fields: dict[str, Any], param: str
) -> None:
    answer = server.post("/v1/retention/rules", fields)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["param"] == param


def test_a_rule_of_a_project_leaves_the_others_alone(server: Server, suffix: str) -> None:
    admin = administration.make_admin_key(server.app)
    project = administration.ask(server, "POST", "/projects", admin, {"name": "p"}).json["id"]
    model = old_model(server, 100, suffix)
    rule = make_rule(server, suffix=suffix, project=project, older_than_days=90, notice_days=0)
    assert preview(server, rule) == []
    with server.app.database.read() as tx:
        row = tx.row("SELECT project_id FROM artifacts WHERE id = :id", id=model)
    assert row is not None
    server.post(f"/v1/retention/rules/{rule}", {"project": row[0]})
    assert outcomes(preview(server, rule)) == {model: "delete"}


def test_while_retention_is_paused_rules_only_preview_until_an_owner_resumes(
    server: Server, suffix: str
) -> None:
    old = old_model(server, 100, suffix)
    rule = make_rule(server, suffix=suffix, older_than_days=90, notice_days=0)
    with server.app.database.write() as tx:
        tx.run(
            "UPDATE retention_pauses SET paused_at = :now, reason = 'restore'", now=tx.now_micros
        )
    state = server.get("/v1/retention", key=server.owner_key).json
    assert (state["paused"], state["reason"]) == (True, "restore")
    server.post(f"/v1/retention/rules/{rule}", {"enabled": True})
    assert outcomes(preview(server, rule)) == {old: "delete"}
    with pytest.raises(openai.ConflictError) as caught:
        run(server, rule)
    assert caught.value.code == "retention_paused"
    reader = server.make_key("reader")
    assert server.post("/v1/retention/resume", {}, key=reader).status == 403
    foreign = server.make_key("owner", organization="elsewhere")
    assert server.post("/v1/retention/resume", {}, key=foreign).status == 200
    assert server.get("/v1/retention", key=server.owner_key).json["paused"] is True
    assert is_there(server, old)
    assert server.post("/v1/retention/resume", {}).json["paused"] is False
    wait_until(lambda: not is_there(server, old), "the rule runs again")


def test_the_commands_do_the_same(server: Server, suffix: str) -> None:
    old, young = old_model(server, 100, suffix), server.make_model(suffix=suffix).id
    choose = ("--suffix", suffix, "--older-than", "90d")
    planned = in_process.on(server, "retention", "preview", *choose)
    assert planned.returncode == 0, planned.stderr
    assert f"delete\t{old}\t" in planned.stdout
    assert f"spared\t{young}\t" in planned.stdout
    made = in_process.on(server, "retention", "rules", "create", *choose, "--notice", "0")
    assert made.returncode == 0, made.stderr
    rule = made.stdout.strip()
    assert "does nothing yet" in made.stderr
    planned = in_process.on(server, "retention", "preview", rule)
    assert f"delete\t{old}\t" in planned.stdout
    assert in_process.on(server, "retention", "run", rule, "--dry-run").returncode == 0
    assert server.cli("retention", "run", rule, stdin="run\n").returncode == 1
    assert is_there(server, old)
    done = server.cli("retention", "run", rule, stdin=f"run {rule}\n")
    again = in_process.on(server, "retention", "run", rule)
    assert (again.returncode, "There is nothing to do." in again.stderr) == (0, True)
    assert done.returncode == 0, done.stderr
    assert f"deleted\t{old}\tdel_" in done.stdout
    assert rule in in_process.on(server, "retention", "rules", "list").stdout
    assert (
        in_process.on(server, "retention", "rules", "change", rule, "--notice", "9").returncode == 0
    )
    assert "notice_days: 9" in in_process.on(server, "retention", "rules", "show", rule).stdout
    assert in_process.on(server, "retention", "rules", "enable", rule).returncode == 0
    assert in_process.on(server, "retention", "rules", "disable", rule).returncode == 0
    assert in_process.on(server, "retention", "rules", "delete", rule, "--dry-run").returncode == 0
    assert in_process.on(server, "retention", "rules", "delete", rule).returncode == 0
    assert in_process.on(server, "retention", "rules", "show", rule).returncode == 3
    assert in_process.on(server, "retention", "status").stdout == "rules act\n"
    assert in_process.on(server, "retention", "resume").returncode == 0
    make_older(server.app, young, 100)
    done = in_process.on(server, "retention", "run", *choose, "--yes")
    assert f"deleted\t{young}\tdel_" in done.stdout
    assert in_process.on(server, "retention", "run").returncode == 2

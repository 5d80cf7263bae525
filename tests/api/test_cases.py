"""Erasing a file with everything that learned from it, as the stock SDK sees it: plan, case, receipts, lineage."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.support import fine_tuning_rows as rows
from tests.support.servers import LOCAL_BASE, Server, WithoutTorch, serving, wait_until

from tunewarden.finetuning.states import State
from tunewarden.identity.policy import ProjectRole
from tunewarden.registry.models import Model
from tunewarden_receipts import cases, receipt
from tunewarden_receipts.deletion_case import CaseLeaf

WITH_MODELS = {"cascade": "models"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("cases") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=2) as running:
        yield running


def upload(server: Server, key: str | None = None) -> str:
    content = ("chats.jsonl", b'{"messages": []}\n')
    return server.client(key).files.create(file=content, purpose="fine-tune").id


def trained(
    server: Server, file: str, *, start: Model | None = None, key: str | None = None
) -> tuple[str, Model, Model]:
    """Return a job that trained on a file, its model and its checkpoint."""
    app, key = server.app, key or server.owner_key
    job = rows.make_job(
        app,
        key,
        state=State.SUCCEEDED,
        training_n=artifact_n(server, file),
        start_n=start.n if start else None,
    )
    model = rows.make_model(app, key, job_id=job)
    checkpoint = rows.make_checkpoint(app, key, job, 2, {})
    rows.set_job(app, job, model_n=model.n)
    return job, model, checkpoint


def artifact_n(server: Server, artifact_id: str) -> int:
    row = server.app.database.peek("SELECT n FROM artifacts WHERE id = :id", id=artifact_id)
    assert row is not None
    return int(row[0])


def plan(server: Server, file: str, key: str | None = None) -> dict[str, Any]:
    return server.get(f"/v1/files/{file}/deletion_plan", key=key or server.owner_key).json


def case_of(server: Server, case: str) -> dict[str, Any]:
    return server.get(f"/v1/deletion_cases/{case}", key=server.owner_key).json


def erase(server: Server, file: str, **query: object) -> Any:
    return (
        server.client(max_retries=0).files.delete(file, extra_query=WITH_MODELS | query).model_extra
    )


def listed(client: OpenAI) -> set[str]:
    return {one.id for one in client.models.list()}


def test_a_file_is_erased_with_every_model_that_learned_from_it_and_nothing_else(
    server: Server,
) -> None:
    file, other = upload(server), upload(server)
    _, first, checkpoint = trained(server, file)
    _, second, late = trained(server, other, start=first)
    _, kept, _ = trained(server, other)
    seen = plan(server, file)
    assert set(seen["learned"]["models"]) == {first.id, second.id}
    assert set(seen["learned"]["checkpoints"]) == {checkpoint.id, late.id}
    assert (seen["learned"]["hidden"], seen["learned"]["jobs"]) == (0, [])
    said = server.client().files.delete(file, extra_query=WITH_MODELS | {"dry_run": True})
    assert said.deleted is False
    assert said.model_extra is not None
    assert said.model_extra["plan"] == seen

    deleted = server.client().files.with_raw_response.delete(
        file,
        extra_query=WITH_MODELS,
        extra_headers={"If-Match": f'"{seen["fingerprint"]}"'},
    )
    case = deleted.headers["tunewarden-deletion-case"]
    answer = deleted.parse()
    assert answer.deleted
    assert answer.model_extra == {
        "deletion_case": {"id": case, "status": "complete", "members": 5, "hidden": 0}
    }
    gone = {first.id, second.id, checkpoint.id, late.id}
    assert not gone & listed(server.client())
    assert kept.id in listed(server.client())
    assert server.client().files.retrieve(other).id == other
    with pytest.raises(openai.NotFoundError):
        server.client().files.retrieve(file)
    found = case_of(server, case)
    assert (found["status"], found["file"], found["members"]) == ("complete", file, 5)
    assert {one.get("model") or one["file"] for one in found["data"]} == {*gone, file}
    assert {one["status"] for one in found["data"]} <= {"deleted", "erased"}
    assert found["data"][-1]["file"] == file, "the file is last"


def test_each_member_has_a_receipt_and_the_summary_commits_to_all_of_them(server: Server) -> None:
    file = upload(server)
    for _ in range(3):
        trained(server, file)
    case = erase(server, file)["deletion_case"]["id"]
    key = server.get("/.well-known/tunewarden-log-key").body

    def fetched(path: str) -> receipt.VerifiedReceipt:
        reply = server.get(path, key=server.owner_key)
        assert reply.header("content-type") == "application/vnd.tunewarden.receipt.v2+json"
        return receipt.verify(reply.body, key)

    summary = fetched(f"/v1/deletion_cases/{case}/receipt")
    members = [
        fetched(f"/v1/deletions/{one['deletion']}/receipt") for one in case_of(server, case)["data"]
    ]
    assert isinstance(summary.facts, CaseLeaf)
    assert cases.check_members(summary, members).count == 7
    assert summary.disclosed is not None
    assert summary.disclosed.artifact_id == file
    assert file.encode() not in summary.statement, "the log names nothing"
    for others in (members[1:], [*members[1:], members[1]], []):
        with pytest.raises(receipt.ReceiptError):
            cases.check_members(summary, others)


def test_the_receipt_of_a_file_alone_names_the_models_that_learned_from_it_and_stay(
    server: Server,
) -> None:
    file, other = upload(server), upload(server)
    _, first, checkpoint = trained(server, file)
    _, second, late = trained(server, other, start=first)
    server.client().models.delete(late.id)
    _, foreign_key = rows.make_project(server.app)
    job = rows.make_job(
        server.app,
        foreign_key,
        state=State.CANCELLED,
        training_n=artifact_n(server, other),
        start_n=first.n,
    )
    foreign = rows.make_checkpoint(server.app, foreign_key, job, 4, {})
    answer = server.client().files.with_raw_response.delete(file)
    deletion = answer.headers["tunewarden-deletion"]
    reply = server.get(f"/v1/deletions/{deletion}/receipt", key=server.owner_key)
    key = server.get("/.well-known/tunewarden-log-key").body
    disclosed = receipt.verify(reply.body, key).disclosed
    assert disclosed is not None
    assert disclosed.lineage is not None
    assert set(disclosed.lineage) == {first.id, checkpoint.id, second.id}
    assert foreign.id.encode() not in reply.body
    # And of one that nothing learned from it says that, not nothing.
    nothing = server.client().models.with_raw_response.delete(second.id)
    path = f"/v1/deletions/{nothing.headers['tunewarden-deletion']}/receipt"
    disclosed = receipt.verify(server.get(path, key=server.owner_key).body, key).disclosed
    assert disclosed is not None
    assert disclosed.lineage == ()


def test_nothing_is_deleted_if_one_member_is_held_and_the_answer_names_it(server: Server) -> None:
    file = upload(server)
    _, model, checkpoint = trained(server, file)
    hold = server.post("/v1/holds", {"model": checkpoint.id, "reason": "case 17"}).json["id"]
    assert [
        (one["type"], one["artifact"]) for one in plan(server, file)["learned"]["blockers"]
    ] == [("hold", checkpoint.id)]
    for query in ({}, {"force": True}):
        with pytest.raises(openai.ConflictError) as caught:
            erase(server, file, **query)
        assert caught.value.code == "on_hold"
        assert checkpoint.id in caught.value.message
        assert str(hold) in caught.value.message
        assert caught.value.response.headers["x-should-retry"] == "false"
    assert {model.id, checkpoint.id} <= listed(server.client())
    server.post(f"/v1/holds/{hold}/lift", {})
    assert erase(server, file)["deletion_case"]["status"] == "complete"


def test_force_takes_members_out_of_aliases_and_overrides_protection(server: Server) -> None:
    file = upload(server)
    _, model, checkpoint = trained(server, file)
    client = server.client(max_retries=0)
    server.post("/v1/aliases", {"name": "erased-alias", "model": model.id})
    server.post(f"/v1/models/{checkpoint.id}", {"protected": True})
    for code in ("alias_target", "protected"):
        with pytest.raises(openai.ConflictError) as caught:
            erase(server, file)
        assert caught.value.code == code
        if code == "alias_target":
            assert client.models.retrieve(model.id).id == model.id
            client.delete("/aliases/erased-alias", cast_to=object)
    server.post("/v1/aliases", {"name": "erased-alias", "model": model.id})
    assert erase(server, file, force=True)["deletion_case"]["members"] == 3
    assert server.get("/v1/aliases/erased-alias", key=server.owner_key).status == 404


def test_a_plan_that_has_changed_is_not_carried_out(server: Server) -> None:
    file = upload(server)
    seen = plan(server, file)["fingerprint"]
    _, model, _ = trained(server, file)
    with pytest.raises(openai.APIStatusError) as caught:
        server.client().files.delete(
            file, extra_query=WITH_MODELS, extra_headers={"If-Match": seen}
        )
    assert (caught.value.status_code, caught.value.code) == (412, "plan_changed")
    assert model.id in listed(server.client())


def test_members_of_other_projects_stay_uncounted_by_name_and_make_it_partial(
    server: Server,
) -> None:
    file = upload(server)
    _, model, _ = trained(server, file)
    _, second = rows.make_project(server.app)
    theirs = upload(server, second)
    job = rows.make_job(
        server.app,
        second,
        state=State.CANCELLED,
        training_n=artifact_n(server, theirs),
        start_n=model.n,
    )
    foreign = rows.make_checkpoint(server.app, second, job, 4, {})
    seen = plan(server, file)
    assert seen["learned"]["hidden"] == 1
    assert foreign.id not in str(seen)
    report = server.get(f"/v1/files/{file}/deletion_plan/report", key=server.owner_key)
    assert (report.json["outcome"], report.json["found"]["hidden"]) == ("partial", 1)
    assert "in other projects would stay" in report.json["statement"]
    assert foreign.id.encode() not in report.body
    lineage = server.get(f"/v1/models/{model.id}/lineage", key=server.owner_key)
    assert lineage.json["down"]["hidden"] == 2, "their job and its checkpoint"
    assert foreign.id.encode() not in lineage.body
    assert job.encode() not in lineage.body
    of_file = server.get(f"/v1/files/{file}/lineage", key=server.owner_key)
    assert of_file.json["down"]["hidden"] == 2
    assert model.id in {one["id"] for one in of_file.json["down"]["data"]}
    assert foreign.id.encode() not in of_file.body
    assert job.encode() not in of_file.body
    outcome = erase(server, file)["deletion_case"]
    assert (outcome["status"], outcome["hidden"]) == ("partial", 1)
    found = case_of(server, outcome["id"])
    assert found["status"] == "partial"
    assert foreign.id not in str(found)
    assert foreign.id in listed(server.client(second))
    server.client(second).models.delete(foreign.id)
    assert case_of(server, outcome["id"])["status"] == "partial", "it never becomes complete"


def test_what_an_owner_declares_of_an_import_is_lineage_and_marked(server: Server) -> None:
    file = upload(server)
    model = server.make_model()
    member = server.make_key("reader", project_role=ProjectRole.MEMBER)
    declared = {"metadata": {"trained_on": f" {file}, {file}"}}
    refused = server.post(f"/v1/models/{model.id}", declared, key=member)
    assert refused.status == 403
    assert plan(server, file)["learned"]["models"] == []
    assert server.post(f"/v1/models/{model.id}", declared).status == 200
    assert plan(server, file)["learned"]["declared"] == [model.id]
    up = server.get(f"/v1/models/{model.id}/lineage", key=server.owner_key).json["up"]["data"]
    assert [(one["id"], one["declared"]) for one in up] == [(file, True)]
    # Metadata that say the same of it are anybody's who may write; those that do not are not.
    down = server.get(f"/v1/files/{file}/lineage", key=server.owner_key)
    assert (down.json["object"], down.json["file"]) == ("file.lineage", file)
    assert [(one["id"], one["declared"], one["via"]) for one in down.json["down"]["data"]] == [
        (model.id, True, file)
    ]
    assert down.json["up"]["data"] == []
    also = {"metadata": {"trained_on": file, "team": "a"}}
    assert server.post(f"/v1/models/{model.id}", also, key=member).status == 200
    assert server.post(f"/v1/models/{model.id}", {"metadata": {}}, key=member).status == 403
    assert erase(server, file)["deletion_case"]["members"] == 2
    assert model.id not in listed(server.client())


def test_what_is_declared_is_known_here_or_refused_and_changes_nothing(server: Server) -> None:
    """An id that leads nowhere would leave a model behind a case that says `complete`."""
    file, model = upload(server), server.make_model().id
    _, second = rows.make_project(server.app)
    theirs = upload(server, second)
    alias = f"alias-of-{file}"
    assert server.post("/v1/aliases", {"name": alias, "model": model}).status == 200
    mistyped = f"{file[:-1]}{'a' if file[-1] != 'a' else 'b'}"
    for unknown in (theirs, mistyped, alias, LOCAL_BASE, "file-elsewhere"):
        declared = {"metadata": {"trained_on": f"{file} {unknown}"}}
        refused = server.post(f"/v1/models/{model}", declared)
        assert refused.status == 400, unknown
        assert refused.json["error"]["param"] == "metadata.trained_on"
        assert unknown in refused.json["error"]["message"]
    shown = server.client().models.retrieve(model).model_extra
    assert shown is not None
    assert shown["metadata"] == {}
    assert plan(server, file)["learned"]["models"] == []


def test_what_was_declared_stays_when_another_project_writes_the_metadata_again(
    server: Server,
) -> None:
    file, model = upload(server), server.make_model().id
    _, second = rows.make_project(server.app)
    declared = {"trained_on": file}
    assert server.post(f"/v1/models/{model}", {"metadata": declared}).status == 200
    again = {"metadata": declared | {"team": "b"}}
    assert server.post(f"/v1/models/{model}", again, key=second).status == 200
    assert erase(server, file)["deletion_case"]["members"] == 2
    with pytest.raises(openai.NotFoundError):
        server.client().models.retrieve(model)
    kept = server.make_model().id
    also = {"metadata": {"trained_on": file}}
    assert server.post(f"/v1/models/{kept}", also).status == 200, "a deleted file is known too"


def test_a_lineage_goes_up_and_down_and_of_the_deleted_says_only_id_and_state(
    server: Server,
) -> None:
    file, other = upload(server), upload(server)
    job, first, checkpoint = trained(server, file)
    later, second, _ = trained(server, other, start=first)

    def ids(model: Model, side: str) -> list[dict[str, Any]]:
        found = server.get(f"/v1/models/{model.id}/lineage", key=server.owner_key).json
        return list(found[side]["data"])

    assert {one["id"] for one in ids(second, "up")} == {later, other, first.id, job, file}
    assert {one["id"]: one.get("via") for one in ids(first, "up")} == {job: first.id, file: job}
    assert later in {one["id"] for one in ids(first, "down")}
    assert checkpoint.id not in {one["id"] for one in ids(first, "down")}
    server.client().models.delete(first.id, extra_query={"force": True})
    assert {"id": first.id, "state": "deleted"} in ids(second, "up")
    # What learned from a deleted model is found all the same.
    assert set(plan(server, file)["learned"]["models"]) == {second.id}


@pytest.mark.parametrize(
    "headers", [{"Idempotency-Key": "erase"}, {"x-stainless-retry-count": "1"}]
)
def test_a_cascade_is_no_retry_of_a_deletion_without_one(
    server: Server, headers: dict[str, str]
) -> None:
    file = upload(server)
    _, model, _ = trained(server, file)
    client = server.client(max_retries=0)
    assert client.files.delete(file, extra_headers=headers).deleted
    assert client.files.delete(file, extra_headers=headers).deleted, "the control: a retry"
    with pytest.raises(openai.NotFoundError):
        client.files.delete(file, extra_query=WITH_MODELS, extra_headers=headers)
    assert model.id in listed(client)
    whole = upload(server)
    trained(server, whole)
    erased = [
        client.files.delete(whole, extra_query=WITH_MODELS, extra_headers=headers).model_extra
        for _ in range(2)
    ]
    assert erased[0] == erased[1], "a retry of a cascade joins its case"


@pytest.mark.parametrize("query", [{"cascade": "everything"}, {"cascade": ""}])
def test_another_cascade_is_refused(server: Server, query: dict[str, str]) -> None:
    file = upload(server)
    with pytest.raises(openai.BadRequestError):
        server.client().files.delete(file, extra_query=query)
    assert server.client().files.retrieve(file).id == file


def test_only_an_owner_erases_and_others_organizations_see_no_case(server: Server) -> None:
    file = upload(server)
    _, model, _ = trained(server, file)
    member = server.make_key("reader", project_role=ProjectRole.MEMBER)
    with pytest.raises(openai.PermissionDeniedError):
        server.client(member).files.delete(file, extra_query=WITH_MODELS)
    assert model.id in listed(server.client())
    case = erase(server, file)["deletion_case"]["id"]
    foreign = server.make_key("owner", organization="elsewhere-cases")
    answers = [
        server.get(f"/v1/deletion_cases/{one}", key=foreign) for one in (case, "case_nobody")
    ]
    assert {one.status for one in answers} == {404}
    assert server.get("/v1/deletion_cases", key=foreign).json["data"] == []
    assert server.get(f"/v1/deletion_cases/{case}", key=member).status == 200
    newest = server.get("/v1/deletion_cases?limit=1", key=server.owner_key).json["data"][0]
    assert newest["id"] == case
    assert "data" not in newest


def test_two_hundred_models_are_gone_within_the_sdks_timeout(server: Server) -> None:
    file = _with_checkpoints(server, 200)
    made = set(plan(server, file)["learned"]["checkpoints"])
    started = time.monotonic()
    # All defaults: the SDK's own retries join the case if the server's bound is over first.
    deleted = server.client().files.delete(file, extra_query=WITH_MODELS)
    seconds = time.monotonic() - started
    assert deleted.model_extra is not None
    assert deleted.model_extra["deletion_case"]["members"] == 201
    assert len(made) == 200
    assert not made & listed(server.client())
    print(f"201 members in {seconds:.2f} s")
    assert seconds < 120, "the default timeout is ten minutes"


def test_beyond_the_bound_the_answer_is_503_with_the_case_and_the_sdks_retry_joins_it(
    tmp_path: Path,
) -> None:
    settings = {"deletion_seconds": 0.1}
    with serving(
        tmp_path / "data", local_base=True, kind=WithoutTorch, workers=2, settings=settings
    ) as slow:
        first, second = (_with_checkpoints(slow, 150) for _ in range(2))
        with pytest.raises(openai.InternalServerError) as caught:
            slow.client(max_retries=0).files.delete(first, extra_query=WITH_MODELS)
        headers = caught.value.response.headers
        case = headers["tunewarden-deletion-case"]
        assert (caught.value.status_code, headers["x-should-retry"]) == (503, "true")
        assert case in caught.value.message
        wait_until(lambda: case_of(slow, case)["status"] == "complete", "it goes on by itself", 60)
        deleted = slow.client(max_retries=60).files.delete(second, extra_query=WITH_MODELS)
        assert deleted.model_extra is not None
        joined = deleted.model_extra["deletion_case"]
        assert (joined["status"], joined["members"]) == ("complete", 151)
        found = slow.get("/v1/deletion_cases", key=slow.owner_key).json["data"]
        assert [one["id"] for one in found] == [joined["id"], case], "no retry began another"


def _with_checkpoints(server: Server, count: int) -> str:
    """Return a file that so many checkpoints learned from."""
    file = upload(server)
    job = rows.make_job(
        server.app, server.owner_key, state=State.SUCCEEDED, training_n=artifact_n(server, file)
    )
    for step in range(1, count + 1):
        rows.make_checkpoint(server.app, server.owner_key, job, step, {})
    return file


def test_the_plan_of_a_file_names_the_exports_of_what_learned_from_it(server: Server) -> None:
    file = upload(server)
    _, model, checkpoint = trained(server, file)
    before = plan(server, file)
    assert before["exports"] == []
    for one in (model, checkpoint):
        server.client().get(f"/models/{one.id}/content", cast_to=bytes)
    seen = plan(server, file)
    assert [one["model"] for one in seen["exports"]] == [model.id, checkpoint.id]
    with pytest.raises(openai.APIStatusError) as changed:
        server.client().files.delete(
            file,
            extra_query=WITH_MODELS,
            extra_headers={"If-Match": f'"{before["fingerprint"]}"'},
        )
    assert changed.value.status_code == 412, "what stays has changed"
    assert erase(server, file) is not None

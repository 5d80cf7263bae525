"""Deleting many at the console: models that were selected, and a file with everything that learned from it."""

import re
from urllib.parse import urlencode

import pytest
from tests.support import fine_tuning_rows
from tests.support.console import FORM, Visitor, hidden
from tests.support.servers import Reply, Server

from tunewarden.finetuning.states import State
from tunewarden.identity.session_rows import SECOND
from tunewarden.identity.sessions import PROOF_MICROS

SELECTED = "/console/delete"


def _many(visitor: Visitor, form: dict[str, str], ids: list[str]) -> Reply:
    """Send the form of many; each id is a field of the same name."""
    body = urlencode([*form.items(), *(("id", one) for one in ids)]).encode()
    headers = {
        "cookie": visitor.cookie or "",
        "sec-fetch-site": "same-origin",
        "content-type": FORM,
    }
    return visitor.server.request("POST", SELECTED, headers=headers, body=body)


def _asked(visitor: Visitor, ids: list[str]) -> tuple[str, dict[str, str]]:
    page = visitor.text(f"{SELECTED}?{urlencode([('id', one) for one in ids])}")
    form = hidden(page)
    form.pop("id", None)
    return page, form


def test_selected_models_go_by_one_sentence_and_what_is_blocked_stays(
    server: Server, owner: Visitor
) -> None:
    free = [server.make_model().id for _ in range(3)]
    held = server.make_model().id
    server.post("/v1/holds", {"model": held, "reason": "a dispute"})
    assert 'name="id"' in owner.text("/console/models")
    page, form = _asked(owner, [*free, held])
    assert form["sentence"] == "delete 3 models"
    assert "on hold" in page
    for typed in ("", "delete 4 models", free[0]):
        reply = _many(owner, {**form, "confirmation": typed}, [*free, held])
        assert reply.status == 400
    sent = {**form, "confirmation": "delete 3 models"}
    # Sent twice, by its button or by going back, it is one request.
    for _ in range(2):
        reply = _many(owner, sent, [*free, held])
        assert reply.status == 200
        assert len(re.findall(r"/console/deletions/del_\w+", reply.body.decode())) == 3
    left = [server.get(f"/v1/models/{one}", key=server.owner_key).status for one in [*free, held]]
    assert left == [404, 404, 404, 200]


def test_what_has_changed_since_many_were_shown_deletes_nothing(
    server: Server, owner: Visitor
) -> None:
    ids = [server.make_model().id for _ in range(2)]
    _, form = _asked(owner, ids)
    server.post(f"/v1/models/{ids[0]}", {"protected": True})
    reply = _many(owner, {**form, "confirmation": form["sentence"]}, ids)
    assert reply.status == 412
    assert hidden(reply.body.decode())["sentence"] == "delete 1 model"
    assert server.get(f"/v1/models/{ids[1]}", key=server.owner_key).status == 200


@pytest.fixture
def with_checkpoints(server: Server) -> tuple[str, str, list[str]]:
    """A model of a job, the job, and the model's three checkpoints."""
    app, key = server.app, server.owner_key
    job = fine_tuning_rows.make_job(app, key, state=State.SUCCEEDED)
    model = fine_tuning_rows.make_model(app, key, job_id=job)
    parts = [fine_tuning_rows.make_checkpoint(app, key, job, step, {}).id for step in (1, 2, 3)]
    return model.id, job, parts


def test_what_goes_with_a_selected_model_is_named_before_and_after(
    server: Server, owner: Visitor, with_checkpoints: tuple[str, str, list[str]]
) -> None:
    model, _, parts = with_checkpoints
    found = server.get(f"/v1/models/{model}/content", key=server.owner_key)
    assert found.status == 200
    (export,) = server.get(f"/v1/models/{model}/deletion_plan", key=server.owner_key).json[
        "exports"
    ]
    page, form = _asked(owner, [model])
    assert form["sentence"] == "delete 1 model and 3 checkpoints"
    for said in (*parts, export["id"], "0 in the last hour", "embedded", "KiB"):
        assert said in page, said
    done = _many(owner, {**form, "confirmation": form["sentence"]}, [model])
    assert done.status == 200
    for said in (*parts, export["id"]):
        assert said in done.body.decode()
    for one in (model, *parts):
        assert server.get(f"/v1/models/{one}", key=server.owner_key).status == 404


def test_a_checkpoint_that_is_selected_with_its_model_counts_once(
    owner: Visitor, with_checkpoints: tuple[str, str, list[str]]
) -> None:
    model, _, parts = with_checkpoints
    _, form = _asked(owner, [parts[0], model])
    assert form["sentence"] == "delete 1 model and 3 checkpoints"


def test_a_checkpoint_that_came_since_deletes_nothing(
    server: Server, owner: Visitor, with_checkpoints: tuple[str, str, list[str]]
) -> None:
    model, job, _ = with_checkpoints
    _, form = _asked(owner, [model])
    late = fine_tuning_rows.make_checkpoint(server.app, server.owner_key, job, 4, {}).id
    reply = _many(owner, {**form, "confirmation": form["sentence"]}, [model])
    assert reply.status == 412
    assert late in reply.body.decode()
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200


def test_nothing_selected_is_said_and_too_many_are_refused(owner: Visitor) -> None:
    here = "/console/models?state=active"
    assert hidden(owner.text(here))["then"] == here
    none = owner.get(f"{SELECTED}?{urlencode({'then': here})}")
    assert none.status == 400
    assert "Nothing is selected" in none.body.decode()
    assert f'<a href="{here}">' in none.body.decode(), "the list as it was"
    elsewhere = owner.get(f"{SELECTED}?{urlencode({'then': '//elsewhere'})}")
    assert '<a href="/console/models">Go back' in elsewhere.body.decode()
    many = urlencode([("id", f"ft:{n}") for n in range(101)])
    assert owner.get(f"{SELECTED}?{many}").status == 400


def test_who_is_no_owner_selects_nothing(server: Server) -> None:
    model = server.make_model().id
    reader = Visitor(server, server.make_key("reader"))
    assert 'name="id"' not in reader.text("/console/models")
    assert reader.get(f"{SELECTED}?id={model}").status == 403
    form = {"sentence": "x", "confirmation": "x", "fingerprint": "*"}
    assert _many(reader, form, [model]).status == 403
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200


def test_many_need_a_fresh_proof_too(server: Server) -> None:
    model, key = server.make_model().id, server.make_key("owner")
    visitor = Visitor(server, key)
    _, form = _asked(visitor, [model])
    with server.app.database.write() as tx:
        sql = "UPDATE sessions SET proof_at = proof_at - :by WHERE key_id = :key"
        tx.run(sql, by=PROOF_MICROS + SECOND, key=f"key_{key.split('-')[2]}")
    sent = {**form, "confirmation": form["sentence"]}
    assert _many(visitor, sent, [model]).status == 403
    assert _many(visitor, {**sent, "key": key}, [model]).status == 200


@pytest.fixture
def learned(server: Server) -> tuple[str, str]:
    """A file, and a model that learned from it."""
    app, key = server.app, server.owner_key
    job = fine_tuning_rows.make_job(app, key, state=State.SUCCEEDED)
    model = fine_tuning_rows.make_model(app, key, job_id=job)
    with app.database.write() as tx:  # what a file has that was really uploaded
        tx.run("UPDATE artifacts SET salt = :salt WHERE salt IS NULL", salt=bytes(32))
    file = server.get(f"/v1/fine_tuning/jobs/{job}", key=key).json["training_file"]
    return str(file), model.id


def test_a_file_goes_with_what_learned_from_it_by_one_sentence_as_a_case(
    server: Server, owner: Visitor, learned: tuple[str, str]
) -> None:
    file, model = learned
    assert f"/console/files/{file}/delete?with=models" in owner.text(f"/console/files/{file}")
    page = owner.text(f"/console/files/{file}/delete?with=models")
    assert model in page
    form = {**hidden(page), "confirmation": "delete 2 models and files"}
    assert owner.post(f"/console/files/{file}/delete", {**form, "confirmation": file}).status == 400
    for _ in range(2):
        done = owner.post(f"/console/files/{file}/delete", form)
        assert done.status == 303, done.body
        assert re.fullmatch(r"/console/cases/case_\w+", done.header("location") or "")
    for path in (f"/v1/files/{file}", f"/v1/models/{model}"):
        assert server.get(path, key=server.owner_key).status == 404


def test_a_file_alone_goes_by_its_id_and_the_page_says_what_stays(
    server: Server, owner: Visitor, learned: tuple[str, str]
) -> None:
    file, model = learned
    page = owner.text(f"/console/files/{file}/delete")
    assert "1 model or checkpoint that learned from it" in page
    form = {**hidden(page), "confirmation": file}
    done = owner.post(f"/console/files/{file}/delete", form)
    assert (done.header("location") or "").startswith("/console/deletions/del_")
    assert server.get(f"/v1/files/{file}", key=server.owner_key).status == 404
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200


def test_the_report_of_a_plan_and_of_a_case_are_there_to_print_and_as_json(
    server: Server, owner: Visitor, learned: tuple[str, str]
) -> None:
    file, model = learned
    server.post("/v1/holds", {"model": model, "reason": "a dispute"})
    here = f"/console/files/{file}/report"
    for page in (f"/console/files/{file}", f"/console/files/{file}/delete?with=models"):
        assert f'href="{here}"' in owner.text(page)
        assert f'href="{here}?format=json"' in owner.text(page)
    printed = owner.get(here)
    assert printed.header("content-type") == "text/html; charset=utf-8"
    assert "a dispute" in printed.body.decode()
    plan = owner.get(f"{here}?format=json")
    assert plan.header("content-disposition") == f'attachment; filename="{file}.plan.report.json"'
    of_api = server.get(f"/v1/files/{file}/deletion_plan/report", key=server.owner_key).json
    assert plan.json | {"made_at": ""} == of_api | {"made_at": ""}
    assert Visitor(server, server.make_key("owner", organization="others")).get(here).status == 404
    other = fine_tuning_rows.make_file(server.app, server.owner_key)
    with server.app.database.write() as tx:
        tx.run("UPDATE artifacts SET salt = :salt WHERE salt IS NULL", salt=bytes(32))
    done = server.request("DELETE", f"/v1/files/{other}?cascade=models", key=server.owner_key)
    case = str(done.header("tunewarden-deletion-case"))
    here = f"/console/cases/{case}/report?format=json"
    assert f'href="{here}"' in owner.text(f"/console/cases/{case}")
    of_api = server.get(f"/v1/deletion_cases/{case}/report", key=server.owner_key).json
    # What is erased in the meantime differs.
    assert owner.get(here).json.keys() == of_api.keys()
    assert [one["artifact"] for one in owner.get(here).json["members"]] == [other]

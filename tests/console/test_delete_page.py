"""Deleting a model at the console: plan, blockers, the typed id, what has changed since, who it is, and the deletion."""

import re
from urllib.parse import urlencode

import pytest
from tests.support.console import Visitor, hidden
from tests.support.servers import Server, wait_until

from tunewarden.api.deletion_schemas import DeletionPlan
from tunewarden.console import confirming
from tunewarden.console.requests import BODY_BYTES_MAX
from tunewarden.identity.sessions import PROOF_MICROS


def _page(model: str) -> str:
    return f"/console/models/{model}/delete"


def _delete(visitor: Visitor, model: str, **fields: str) -> tuple[int, str, str]:
    form = hidden(visitor.text(_page(model)))
    reply = visitor.post(_page(model), {**form, "confirmation": model, **fields})
    return reply.status, reply.header("location") or "", reply.body.decode()


def test_a_model_is_deleted_and_the_page_of_its_deletion_shows_each_step(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model(suffix="gone").id
    status, where, _ = _delete(owner, model)
    assert status == 303
    assert re.fullmatch(r"/console/deletions/del_\w+", where)
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 404
    deletion = where.rpartition("/")[2]
    api = f"/v1/deletions/{deletion}"
    wait_until(lambda: server.get(api, key=server.owner_key).json["blobs_erased_at"], "D9")
    page = owner.text(where)
    shown = server.get(api, key=server.owner_key).json
    assert page.count('<li class="done">') == 7
    assert all(one["worker"] in page for one in shown["fence"])
    assert all(one["engine"] in page for one in shown["engines"])
    receipt = owner.get(f"{where}/receipt")
    assert receipt.body == server.get(f"{api}/receipt", key=server.owner_key).body
    assert "tunewarden-receipts verify" in page
    assert owner.get(_page(model)).status == 404


def test_a_form_that_is_sent_twice_leads_to_the_same_deletion(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    form = {**hidden(owner.text(_page(model))), "confirmation": f" {model} "}
    first, second = owner.post(_page(model), form), owner.post(_page(model), form)
    assert first.status == second.status == 303
    assert first.header("location") == second.header("location")
    other = owner.post(_page(model), {**form, "attempt": "another"})
    assert other.status == 404


@pytest.mark.parametrize("typed", ["", "ft:another", "delete"])
def test_without_the_id_nothing_is_deleted(server: Server, owner: Visitor, typed: str) -> None:
    model = server.make_model().id
    assert _delete(owner, model, confirmation=typed)[0] == 400
    assert owner.get(f"/console/models/{model}").status == 200


def test_what_blocks_it_is_shown_with_what_lifts_it_and_no_field(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    hold = server.post("/v1/holds", {"model": model, "reason": "case 17"}).json["id"]
    server.post(f"/v1/models/{model}", {"protected": True})
    page = owner.text(_page(model))
    assert f"/console/holds/{hold}/lift" in page
    assert 'name="confirmation"' not in page
    assert "force=yes" not in page  # a hold is not overridden
    plan = server.get(f"/v1/models/{model}/deletion_plan", key=server.owner_key).json
    forged = {"confirmation": model, "fingerprint": plan["fingerprint"], "force": "yes"}
    assert owner.post(_page(model), forged).status == 409
    back = owner.post(f"/console/holds/{hold}/lift", {"then": _page(model)})
    assert back.header("location") == _page(model)
    assert 'name="confirmation"' not in owner.text(_page(model))
    assert 'name="confirmation"' in owner.text(f"{_page(model)}?force=yes")
    then = {"change": "unprotect", "then": _page(model)}
    assert owner.post(f"/console/models/{model}", then).header("location") == _page(model)
    assert _delete(owner, model)[0] == 303


def test_a_hold_is_placed_and_an_alias_switched_where_they_are_in_the_way(
    server: Server, owner: Visitor
) -> None:
    model, other = server.make_model().id, server.make_model().id
    where = f"/console/models/{model}"
    assert owner.post(f"{where}/holds", {"reason": "case 18"}).header("location") == where
    page = owner.text(where)
    assert "case 18" in page
    (hold,) = re.findall(r"/console/holds/(hold_\w+)/lift", page)
    assert owner.post(f"/console/holds/{hold}/lift", {}).header("location") == where
    server.post("/v1/aliases", {"name": "in-the-way", "model": model})
    assert "/console/aliases/in-the-way" in owner.text(_page(model))
    form = {**hidden(owner.text(_page(model))), "model": other}
    assert (form["act"], form["then"]) == ("switch", _page(model))
    assert owner.post("/console/aliases/in-the-way", form).header("location") == _page(model)
    assert _delete(owner, model)[0] == 303
    alias = server.get("/v1/aliases/in-the-way", key=server.owner_key).json
    assert [one["model"] for one in alias["targets"]] == [other]


def test_a_protected_model_is_deleted_by_force_when_that_is_asked_for(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    server.post(f"/v1/models/{model}", {"protected": True})
    form = hidden(owner.text(f"{_page(model)}?force=yes"))
    assert form["force"] == "yes"
    assert owner.post(_page(model), {**form, "confirmation": model}).status == 303


def test_what_has_changed_since_the_plan_was_shown_is_shown_and_nothing_deleted(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    form = {**hidden(owner.text(_page(model))), "confirmation": model}
    server.post("/v1/aliases", {"name": "chosen-meanwhile", "model": model})
    reply = owner.post(_page(model), form)
    assert reply.status == 412
    page = reply.body.decode()
    assert "What has changed" in page
    assert re.search(r"Aliases</th>\s*<td[^>]*>none</td><td[^>]*>chosen-meanwhile</td>", page)
    assert owner.get(f"/console/models/{model}").status == 200
    for odd in (
        "]",
        "[" * 80_000,
        '{"aliases":' * 5_000,
        '{"aliases":' + "[" * 400 + "]" * 400 + "}",
    ):
        assert owner.post(_page(model), {**form, "seen": odd}).status == 412, odd[:20]


def test_a_form_names_the_plan_that_was_seen_and_not_any(server: Server, owner: Visitor) -> None:
    model = server.make_model().id
    form = {**hidden(owner.text(_page(model))), "confirmation": model}
    for wrong in ("*", '"*"', "", f"{form['fingerprint']}, *"):
        assert owner.post(_page(model), {**form, "fingerprint": wrong}).status == 412, wrong
        many = {**form, "id": model, "sentence": model, "fingerprint": wrong}
        assert owner.post("/console/delete", many).status == 412, wrong
    assert owner.get(f"/console/models/{model}").status == 200


def test_who_signed_in_a_while_ago_shows_the_key_again(server: Server) -> None:
    model, key = server.make_model().id, server.make_key("owner")
    visitor = Visitor(server, key)
    with server.app.database.write() as tx:
        sql = "UPDATE sessions SET proof_at = proof_at - :by WHERE key_id = :key"
        tx.run(sql, by=PROOF_MICROS, key=f"key_{key.split('-')[2]}")
    assert 'name="key"' in visitor.text(_page(model))
    for wrong in ("", "sk-tw-x", server.owner_key):
        assert _delete(visitor, model, key=wrong)[0] == 403
    assert _delete(visitor, model, key=key)[0] == 303
    # It was a proof for what follows, too.
    assert 'name="key"' not in visitor.text(_page(server.make_model().id))


def test_who_is_no_owner_is_led_to_no_deletion_and_refused(server: Server) -> None:
    model = server.make_model().id
    reader = Visitor(server, server.make_key("reader"))
    assert "/delete" not in reader.text(f"/console/models/{model}")
    assert reader.get(_page(model)).status == 403
    form = {"confirmation": model, "fingerprint": "*"}
    assert reader.post(_page(model), form).status == 403
    assert reader.post(f"/console/models/{model}", {"change": "archive"}).status == 403
    other = Visitor(server, server.make_key("owner", organization="others"))
    for path in (f"/console/models/{model}", _page(model)):
        assert other.get(path).status == 404
    assert other.post(_page(model), form).status == 404
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200


def test_a_plan_of_ten_thousand_makes_a_form_that_is_read_and_says_what_has_changed() -> None:
    plan = DeletionPlan(
        object="model.deletion_plan",
        checkpoints=[f"ft:base:org::{n:08}:ckpt-step-{n}" for n in range(10_000)],
        blobs=1,
        bytes=1,
        blockers=[],
        derived_files=[f"file-{n}" for n in range(10_000)],
        aliases=[],
        jobs=[],
        exports=[],
        fingerprint="x",
    )
    before = confirming.seen(plan)
    assert len(urlencode({"seen": before})) < BODY_BYTES_MAX / 8
    assert confirming.changed(before, plan) == []
    plan.checkpoints = [*plan.checkpoints[:-2], "ft:another"]
    plan.blobs = 2
    (checkpoints, blobs) = confirming.changed(before, plan)
    assert blobs == ("Sealed files", "1", "2")
    assert checkpoints[:2] == ("Checkpoints", "10000 in all, too many to keep")
    assert checkpoints[2].startswith("9999 in all: ft:base:org::00000000:ckpt-step-0, ")

"""What makes way for a deletion, or hides one, asks for the key again as a deletion does."""

import html
import re

import pytest
from tests.support import fine_tuning_rows as rows
from tests.support import webhook_rows
from tests.support.console import Visitor, hidden, sign_in_a_while_ago
from tests.support.servers import Reply, Server

from tunewarden.finetuning.states import State
from tunewarden.registry import retention_pause
from tunewarden.registry.retention_pause import PauseReason


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return server.make_key("owner")


@pytest.fixture
def visitor(server: Server, key: str) -> Visitor:
    return sign_in_a_while_ago(server, key)


def _refused_then_done(visitor: Visitor, key: str, path: str, form: dict[str, str]) -> Reply:
    """Send a form without the key, with another's, and as the page that asks for it sends it again."""
    for wrong in ("", visitor.server.owner_key):
        reply = visitor.post(path, {**form, "key": wrong})
        assert reply.status == 403
        assert b'name="key"' in reply.body
    again = hidden(reply.body.decode())
    assert again == form, "all that was typed is kept, but for the key"
    return visitor.post(path, {**again, "key": key})


def test_a_hold_is_lifted(server: Server, visitor: Visitor, key: str) -> None:
    model = server.make_model().id
    hold = server.post("/v1/holds", {"model": model, "reason": "a dispute"}).json["id"]
    form = {"then": f"/console/models/{model}/delete"}
    path = f"/console/holds/{hold}/lift"
    assert visitor.post(path, form).status == 403
    assert server.get(f"/v1/holds/{hold}", key=server.owner_key).json["lifted_at"] is None
    assert _refused_then_done(visitor, key, path, form).header("location") == form["then"]
    assert server.get(f"/v1/holds/{hold}", key=server.owner_key).json["lifted_at"] is not None


def test_a_protection_is_lifted_and_set_without(server: Server, visitor: Visitor, key: str) -> None:
    model = server.make_model().id
    path = f"/console/models/{model}"
    for harmless in ("protect", "archive", "unarchive"):
        assert visitor.post(path, {"change": harmless}).status == 303
    form = {"change": "unprotect"}
    assert visitor.post(path, form).status == 403
    assert "badge-protected" in visitor.text(path)
    assert _refused_then_done(visitor, key, path, form).status == 303
    assert "badge-protected" not in visitor.text(path)


def test_a_job_is_cancelled_and_resumed_without(server: Server, visitor: Visitor, key: str) -> None:
    job = rows.make_job(server.app, server.owner_key, state=State.PAUSED)
    path = f"/console/jobs/{job}"
    assert visitor.post(path, {"act": "resume"}).status == 303
    form = {"act": "cancel"}
    assert visitor.post(path, form).status == 403
    assert not rows.state_of(server.app, job).has_ended
    assert _refused_then_done(visitor, key, path, form).status == 303
    assert rows.state_of(server.app, job).has_ended


def test_an_alias_is_switched(server: Server, visitor: Visitor, key: str) -> None:
    before, after = server.make_model().id, server.make_model().id
    server.post("/v1/aliases", {"name": "proved", "model": before})
    form = {"act": "switch", "model": after, "then": "/console/models"}
    assert _refused_then_done(visitor, key, "/console/aliases/proved", form).status == 303
    alias = server.get("/v1/aliases/proved", key=server.owner_key).json
    assert [one["model"] for one in alias["targets"]] == [after]
    server.request("DELETE", "/v1/aliases/proved", key=server.owner_key)


def test_an_endpoint_gets_a_new_secret_and_is_deleted(
    server: Server, visitor: Visitor, key: str
) -> None:
    path = f"/console/webhooks/{webhook_rows.make_endpoint(server.app, server.owner_key)}"
    for act in ("disable", "rotate", "delete"):
        first = visitor.post(path, {"act": act})
        assert first.status == 403
        assert b"whsec_" not in first.body
    assert visitor.get(path).status == 200
    assert "badge-disabled" not in visitor.text(path)
    assert visitor.post(path, {"act": "enable"}).status == 303
    rotated = _refused_then_done(visitor, key, path, {"act": "rotate"})
    assert re.search(r"whsec_[A-Za-z0-9+/=]+", html.unescape(rotated.body.decode()))
    assert visitor.post(path, {"act": "delete"}).status == 303, "the proof is fresh now"
    assert visitor.get(path).status == 404


def test_paused_rules_act_again(server: Server, visitor: Visitor, key: str) -> None:
    path = "/console/retention"
    rule = visitor.post(path, {"action": "archive", "older_than_days": "900"}).header("location")
    with server.app.database.write() as tx:
        retention_pause.pause_all(tx, PauseReason.RESTORE)
    assert visitor.post(f"{path}/resume", {}).status == 403
    assert "Rules only preview now" in visitor.text(path)
    assert _refused_then_done(visitor, key, f"{path}/resume", {}).status == 303
    assert "Rules only preview now" not in visitor.text(path)
    visitor.post(rule or "", {"act": "delete"})


def test_a_rule_without_notice_says_that_it_announces_nothing(owner: Visitor) -> None:
    form = {"action": "delete", "older_than_days": "900", "notice_days": "0"}
    here = owner.post("/console/retention", form).header("location") or ""
    assert "not announced" in owner.text(here)
    assert "not announced" in owner.text("/console/retention")
    assert owner.post(here, {"act": "delete"}).status == 303

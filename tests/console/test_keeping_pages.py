"""Retention, webhooks and the system at the console."""

import hashlib
import html
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support import webhook_rows
from tests.support.console import Visitor, hidden
from tests.support.servers import Server

from tunewarden.config import SETTINGS, Config
from tunewarden.console import retention_pages
from tunewarden.console.system_pages import source_of
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.identity.sessions import PROOF_MICROS
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.settings import Source


def test_a_rule_is_made_previewed_enabled_and_deleted(server: Server, owner: Visitor) -> None:
    model = server.make_model(suffix="kept").id
    made = owner.post(
        "/console/retention",
        {"action": "delete", "older_than_days": "1", "suffix": "kept", "keep_latest": ""},
    )
    assert made.status == 303
    here = made.header("location") or ""
    rule = here.rpartition("/")[2]
    api = f"/v1/retention/rules/{rule}"
    terms = server.get(api, key=server.owner_key).json
    assert (terms["action"], terms["older_than_days"], terms["suffix"], terms["keep_latest"]) == (
        "delete",
        1,
        "kept",
        None,
    )
    assert (terms["notice_days"], terms["enabled"]) == (7, False), "it does nothing yet"
    page = owner.text(here)
    assert "older than 1 day" in page
    assert model in page
    assert "It is 0 days old, and less than 1 are spared." in page
    assert owner.post(here, {"act": "enable"}).status == 303
    assert server.get(api, key=server.owner_key).json["enabled"] is True
    assert rule in owner.text("/console/retention")
    assert owner.post(here, {"act": "delete"}).status == 303
    assert owner.get(here).status == 404
    assert owner.get(f"/console/models/{model}").status == 200


def _proved_long_ago(server: Server, key: str) -> None:
    with server.app.database.write() as tx:
        sql = "UPDATE sessions SET proof_at = proof_at - :by WHERE key_id = :key"
        tx.run(sql, by=PROOF_MICROS, key=f"key_{key.split('-')[2]}")


def test_a_rule_is_changed_by_its_form_and_a_wrong_change_changes_nothing(
    server: Server,
) -> None:
    key = server.make_key("owner", organization="changed")
    visitor = Visitor(server, key)
    made = visitor.post("/console/retention", {"action": "archive", "older_than_days": "90"})
    here = str(made.header("location"))
    api = f"/v1/retention/rules/{here.rpartition('/')[2]}"
    assert 'value="90"' in visitor.text(here)
    sent = {"act": "change", "action": "delete", "unused_for_days": "30", "notice_days": "3"}
    wrong = visitor.post(here, {**sent, "unused_for_days": "a month"})
    assert wrong.status == 400
    assert 'value="a month"' in wrong.body.decode()
    assert server.get(api, key=key).json["older_than_days"] == 90
    assert visitor.post(here, sent).status == 303
    terms = server.get(api, key=key).json
    assert (terms["action"], terms["older_than_days"], terms["unused_for_days"]) == (
        "delete",
        None,
        30,
    )
    assert (terms["notice_days"], terms["enabled"]) == (3, False)
    # Once the rule is enabled, a change that lets it delete more asks for the key again.
    assert visitor.post(here, {"act": "enable"}).status == 303
    _proved_long_ago(server, key)
    more = {**sent, "unused_for_days": "1"}
    asked = visitor.post(here, more)
    assert asked.status == 403
    assert 'name="unused_for_days" value="1"' in asked.body.decode(), "it is sent again from there"
    assert server.get(api, key=key).json["unused_for_days"] == 30
    assert visitor.post(here, {**more, "key": key}).status == 303
    terms = server.get(api, key=key).json
    assert (terms["unused_for_days"], terms["enabled"]) == (1, True)
    reader = Visitor(server, server.make_key("reader", organization="changed"))
    assert reader.post(here, sent).status == 403


def test_a_rule_is_run_at_once_if_it_does_what_was_seen(server: Server) -> None:
    key = server.make_key("owner", organization="run")
    visitor = Visitor(server, key)
    old, older = (server.make_model(key=key).id for _ in range(2))
    made = visitor.post(
        "/console/retention", {"action": "delete", "older_than_days": "30", "notice_days": "0"}
    )
    here = str(made.header("location"))

    def age(model: str) -> None:
        with server.app.database.write() as tx:
            sql = "UPDATE artifacts SET created_at = created_at - :by WHERE id = :id"
            tx.run(sql, by=40 * 86_400 * 1_000_000, id=model)

    age(old)
    page = visitor.text(here)
    form = {"act": "run", **hidden(page)}
    assert "Type or paste this: delete 1 model" in page
    _proved_long_ago(server, key)
    assert visitor.post(here, {**form, "confirmation": "delete 1 model"}).status == 403
    form["key"] = key
    assert visitor.post(here, {**form, "confirmation": "delete 2 models"}).status == 400
    age(older)
    changed = visitor.post(here, {**form, "confirmation": "delete 1 model"})
    assert changed.status == 412
    assert "delete 2 models" in changed.body.decode()
    left = [server.get(f"/v1/models/{one}", key=key).status for one in (old, older)]
    assert left == [200, 200], "nothing was done"
    form |= hidden(changed.body.decode())
    done = visitor.post(here, {**form, "confirmation": "delete 2 models"})
    assert done.status == 200, done.body
    assert len(set(re.findall(r"/console/deletions/(del_\w+)", done.body.decode()))) == 2
    left = [server.get(f"/v1/models/{one}", key=key).status for one in (old, older)]
    assert left == [404, 404]
    with server.app.database.read() as tx:
        rule = here.rpartition("/")[2]
        sql = "SELECT type FROM audit_events WHERE resource_id = :rule ORDER BY n DESC LIMIT 1"
        assert tx.rows(sql, rule=rule) == [("retention.rule.run",)]
    page = visitor.text(here)
    assert "There is nothing to do now." in page
    assert 'value="run"' not in page, "what does nothing is not confirmed"


def test_a_form_for_a_preview_of_nothing_runs_nothing(server: Server) -> None:
    """Nobody confirmed anything: neither if that is still so, nor if the rule was changed since."""
    key = server.make_key("owner", organization="nothing")
    visitor = Visitor(server, key)
    models = [server.make_model(key=key).id for _ in range(2)]
    terms = {"action": "delete", "notice_days": "0"}
    here = str(visitor.post("/console/retention", {**terms, "keep_latest": "9"}).header("location"))
    api = f"/v1/retention/rules/{here.rpartition('/')[2]}"
    *_, summary = server.get(f"{api}/preview", key=key).body.splitlines()
    form = {"act": "run", "seen": json.loads(summary)["fingerprint"], "confirmation": ""}
    refused = visitor.post(here, form)
    assert refused.status == 409
    assert "There is nothing to do now." in refused.body.decode()
    server.post(api, {"keep_latest": 1}, key=key)
    for seen in (form["seen"], hashlib.sha256().hexdigest(), ""):
        assert visitor.post(here, {**form, "seen": seen}).status == 412
    assert [server.get(f"/v1/models/{one}", key=key).status for one in models] == [200, 200]


def test_a_rule_that_is_changed_while_its_form_is_read_is_not_run(server: Server) -> None:
    """The form is sent while the change is being written: it compares before that, and would act after it."""
    key = server.make_key("owner", organization="meanwhile")
    visitor = Visitor(server, key)
    models = [server.make_model(key=key).id for _ in range(3)]
    terms = {"action": "delete", "notice_days": "0"}
    here = str(visitor.post("/console/retention", {**terms, "keep_latest": "2"}).header("location"))
    form = {"act": "run", **hidden(visitor.text(here)), "confirmation": "delete 1 model"}
    with ThreadPoolExecutor(1) as other:
        with server.app.database.write() as tx:
            sql = "UPDATE retention_rules SET keep_latest = 1, version = version + 1 WHERE id = :id"
            tx.run(sql, id=here.rpartition("/")[2])
            sent = other.submit(visitor.post, here, form)
            time.sleep(0.5)  # less does no harm but that the test sees less
        assert sent.result().status == 412
    assert [server.get(f"/v1/models/{one}", key=key).status for one in models] == [200] * 3


def test_who_signed_in_a_while_ago_shows_the_key_again_before_a_rule_deletes(
    server: Server,
) -> None:
    key = server.make_key("owner")
    visitor = Visitor(server, key)
    rules = [
        visitor.post("/console/retention", {"action": action, "older_than_days": "900"})
        for action in ("delete", "archive")
    ]
    deleting, archiving = (str(made.header("location")) for made in rules)
    with server.app.database.write() as tx:
        sql = "UPDATE sessions SET proof_at = proof_at - :by WHERE key_id = :key"
        tx.run(sql, by=PROOF_MICROS, key=f"key_{key.split('-')[2]}")
    assert 'name="key"' not in visitor.text(archiving)
    assert visitor.post(archiving, {"act": "enable"}).status == 303, "what it archives comes back"
    assert 'name="key"' in visitor.text(deleting)
    for wrong in ("", server.owner_key):
        assert visitor.post(deleting, {"act": "enable", "key": wrong}).status == 403
        assert "badge-disabled" in visitor.text(deleting)
    assert visitor.post(deleting, {"act": "enable", "key": key}).status == 303
    assert "badge-enabled" in visitor.text(deleting)
    for one in (deleting, archiving):
        assert visitor.post(one, {"act": "delete"}).status == 303


@pytest.mark.parametrize(
    ("outcome", "most"),
    [
        (Outcome.SPARED, retention_pages.LOOKED_AT_MAX),
        (Outcome.DELETE, retention_pages.ACTED_ON_MAX),
    ],
)
def test_a_preview_on_a_page_reads_no_further_than_it_shows(outcome: Outcome, most: int) -> None:
    def found(count: int) -> Iterator[Result | Summary]:
        for n in range(count):
            yield Result(outcome=outcome, kind=ArtifactKind.MODEL, artifact_id=f"ft:{n}")
        assert count < most, "a page looks at no more"
        yield Summary(fingerprint="whole")

    rows, counts, fingerprint = retention_pages.looked_at(found(most))
    assert len(rows) == retention_pages.PREVIEW_ROWS
    assert (counts, fingerprint) == ({outcome: most}, None)
    whole = retention_pages.looked_at(found(3))
    assert (whole.counts, whole.fingerprint) == ({outcome: 3}, "whole")


def test_a_rule_with_what_is_no_number_is_not_made(server: Server, owner: Visitor) -> None:
    before = server.get("/v1/retention/rules", key=server.owner_key).json["data"]
    for wrong in ("x", "-1", "1.5", "9999999", "٣"):
        sent = {"action": "archive", "older_than_days": wrong}
        assert owner.post("/console/retention", sent).status == 400, wrong
    assert owner.post("/console/retention", {"action": "purge"}).status == 400
    assert server.get("/v1/retention/rules", key=server.owner_key).json["data"] == before


def test_an_endpoint_shows_its_secret_once_and_can_be_changed(
    server: Server, owner: Visitor
) -> None:
    sent = {
        "name": "<b>ours</b>",
        "url": "https://192.0.43.8/hook",
        "event_types": "model.deleted",
    }
    made = owner.post("/console/webhooks", sent)
    assert made.status == 200
    assert made.header("cache-control") == "no-store"
    [secret] = re.findall(r"whsec_[A-Za-z0-9+/=]+", html.unescape(made.body.decode()))
    [here] = re.findall(r'href="(/console/webhooks/whe_\w+)"', made.body.decode())
    for path in ("/console/webhooks", here):
        page = owner.text(path)
        assert secret not in html.unescape(page)
        assert "&lt;b&gt;ours&lt;/b&gt;" in page
        assert "<b>ours" not in page
    assert owner.post(here, {"act": "disable"}).status == 303
    assert "badge-disabled" in owner.text(here)
    rotated = owner.post(here, {"act": "rotate"})
    [new] = re.findall(r"whsec_[A-Za-z0-9+/=]+", html.unescape(rotated.body.decode()))
    assert new != secret
    assert owner.post(here, {"act": "delete"}).status == 303
    assert owner.get(here).status == 404


def test_a_delivery_is_sent_again_from_its_row(server: Server, owner: Visitor) -> None:
    endpoint = webhook_rows.make_endpoint(server.app, server.owner_key)
    delivery = webhook_rows.make_delivery(server.app, server.owner_key, endpoint)
    here = f"/console/webhooks/{endpoint}"
    assert f"{here}/deliveries/{delivery}" in owner.text(here)
    assert owner.post(f"{here}/deliveries/{delivery}", {}).status == 303
    assert "Nothing was sent that is like that" in owner.text(f"{here}?state=delivered")
    for as_file in ("", "&format=csv"):
        assert owner.get(f"{here}?state=nonsense{as_file}").status == 400
    server.request("DELETE", f"/v1/webhook_endpoints/{endpoint}", key=server.owner_key)


def test_a_reader_is_led_to_none_of_these_and_refused(server: Server) -> None:
    reader = Visitor(server, server.make_key("reader"))
    navigation = reader.text("/console")
    for path in ("/console/retention", "/console/webhooks", "/console/system"):
        assert f'href="{path}"' not in navigation
        assert reader.get(path).status == 403


def test_the_system_shows_each_setting_with_its_source_and_no_path(
    server: Server, owner: Visitor
) -> None:
    page = owner.text("/console/system")
    shown = dict(
        re.findall(r'<code class="id">(\w+)</code></th>\n<td data-label="Value">(.*?)</td>', page)
    )
    assert shown.keys() == SETTINGS.keys()
    assert shown["file_bytes_max"] == str(Config().file_bytes_max)
    assert shown["port"] == str(server.address[1])
    assert re.search(r'>embedded</code> <span class="badge badge-(ready|unreachable)">', page)
    # No worker knows the flags of its server, which tells it.
    assert shown["workers"] == "2"
    sources = dict(re.findall(r'>(\w+)</code></th>\n.*?\n<td data-label="From">(.*?)</td>', page))
    given = [sources[name] for name in ("data", "port", "workers", "host")]
    assert given == ["flag", "flag", "flag", "default"]
    assert "on the server" in shown["host"], "an address is the operator's to know, too"
    # A directory is the operator's to know: Owners of any organization see this page.
    assert str(server.data) not in page
    assert "on the server" in shown["data"]
    assert page.count('<td data-label="From">default</td>') > 20
    assert page.count('<td data-label="From">environment</td>') >= 1


def test_what_the_server_reduced_by_itself_was_not_changed_by_anybody() -> None:
    sources = {"connections_max": Source.DEFAULT, "drain_seconds": Source.FILE}
    assert source_of("connections_max", 448, 16_384, sources) == (
        "default (16384), as far as the limit on open files allows"
    )
    assert source_of("connections_max", 16_384, 16_384, sources) == "default"
    assert source_of("connections_max", 448, 64, sources) == "changed since the start"
    assert source_of("drain_seconds", 5, 6, sources) == "changed since the start"

"""The page one comes to: what needs somebody, of what one may read, and the first steps on a new server."""

from tests.support import fine_tuning_rows, webhook_rows
from tests.support.console import Visitor
from tests.support.servers import Server

from tunewarden.finetuning.states import State

DAY = 86_400 * 1_000_000


def test_a_new_organization_is_told_what_comes_first_and_that_nothing_needs_anybody(
    server: Server,
) -> None:
    page = Visitor(server, server.make_key("owner", organization="new")).text("/console")
    assert "tunewarden bases add" not in page  # there is one
    assert "tunewarden models import" in page
    assert "Nothing needs anybody now." in page
    assert page.count('class="done"') == 1


def test_what_failed_or_stopped_is_there_for_who_may_read_it(server: Server) -> None:
    app, key = server.app, server.make_key("owner", organization="busy")
    failed, old = (
        fine_tuning_rows.make_job(app, key, state=State.FAILED, finished_at=finished_at)
        for finished_at in (_now(server) - DAY, _now(server) - 8 * DAY)
    )
    endpoint, by_owner = (webhook_rows.make_endpoint(app, key) for _ in range(2))
    rule = {"action": "delete", "older_than_days": 36_500}
    server.post("/v1/retention/rules", rule, key=key)
    with app.database.write() as tx:
        disable = "UPDATE webhook_endpoints SET disabled_at = :now, disabled_because = :why WHERE id = :id"
        tx.run(disable, now=tx.now_micros, why="failing", id=endpoint)
        tx.run(disable, now=tx.now_micros, why="owner", id=by_owner)
        tx.run(
            "UPDATE retention_pauses SET paused_at = :now, reason = 'restore' WHERE organization_id ="
            " (SELECT id FROM organizations WHERE name = 'busy')",
            now=tx.now_micros,
        )
    page = Visitor(server, key).text("/console")
    assert f"/console/jobs/{failed}" in page
    assert f"/console/jobs/{old}" not in page
    assert f"/console/webhooks/{endpoint}" in page
    assert by_owner not in page
    assert "Retention rules are paused" in page
    reader = Visitor(server, server.make_key("reader", organization="busy"))
    assert f"/console/jobs/{failed}" in reader.text("/console")
    assert endpoint not in reader.text("/console")
    other = Visitor(server, server.make_key("owner", organization="elsewhere"))
    assert failed not in other.text("/console")


def _now(server: Server) -> int:
    with server.app.database.read() as tx:
        return tx.now_micros


def test_a_slash_too_many_leads_to_the_first_page(server: Server, owner: Visitor) -> None:
    for visitor in (owner, Visitor(server)):
        assert visitor.get("/console/").header("location") == "/console"


def test_a_form_that_was_refused_is_on_its_page_again(server: Server, owner: Visitor) -> None:
    model = server.make_model().id
    page = f"/console/models/{model}"
    for path, form, there in (
        ("/console/retention", {"action": "archive", "older_than_days": "x"}, "<h1>Retention</h1>"),
        ("/console/webhooks", {"name": "x", "url": "ftp://x"}, "<h1>Webhooks</h1>"),
        (f"{page}/holds", {"reason": ""}, "Place a hold"),
        (page, {"change": "?", "then": "//evil.example"}, "Place a hold"),
        (page, {"change": "?", "then": f"{page}/delete"}, "Delete for good"),
    ):
        refused = owner.post(path, form)
        assert refused.status == 400, path
        assert "<title>Not done: " in refused.body.decode(), path
        assert there in refused.body.decode(), path


def test_a_model_that_was_deleted_leads_to_its_deletion_and_another_organization_nowhere(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{model}", key=server.owner_key)
    deletion = f"/console/deletions/{deleted.header('tunewarden-deletion')}"
    gone = owner.get(f"/console/models/{model}")
    assert gone.status == 404
    assert deletion in gone.body.decode()
    stranger = Visitor(server, server.make_key("owner", organization="others"))
    page = stranger.get(f"/console/models/{model}")
    assert page.status == 404
    assert deletion not in page.body.decode()

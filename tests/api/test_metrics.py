"""What a real server counts, over its workers and their deaths, and what it does not say.

A request is counted when it has ended, which its client may see a moment before: so what must be there is waited for.
"""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import scrapes, servers
from tests.support.scrapes import Growth, scrape
from tests.support.servers import Server, wait_until

from tunewarden.metrics import families

CHAT = "/v1/chat/completions"
MODEL = "/v1/models/{model_id}"
REQUESTS = "tunewarden_requests_total"
RESTARTS = "tunewarden_process_restarts_total"
WORKERS = 2
MANY = 100_000
SUFFIX = "jane-roe"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("metrics") / "data"
    settings = {**scrapes.SETTINGS, "log_format": "json", "access_log": "true"}
    kind = servers.WithoutTorch
    with servers.serving(
        data, workers=WORKERS, settings=settings, local_base=True, kind=kind
    ) as running:
        up = {"base": servers.LOCAL_BASE}
        wait_until(lambda: scrape(running).total("tunewarden_engine_up", **up) == 1, "it is loaded")
        yield running


def _chat(server: Server, model: str, **fields: Any) -> int:
    asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
    return server.post(CHAT, asked).status


def test_each_inference_request_is_counted_once_under_its_base(server: Server) -> None:
    model = server.make_model(suffix=SUFFIX).id
    grown = Growth(server)
    for _ in range(6):
        assert _chat(server, model) == 200
    assert _chat(server, model, stream=True, fake={"chunks": 4}) == 200
    assert _chat(server, "ft:unknown") == 404
    of_base = {"gen_ai_request_model": servers.LOCAL_BASE, "gen_ai_operation_name": "chat"}
    duration = families.DURATION.name
    grown.by(7, f"{duration}_count", **of_base, error_type="")
    grown.by(7, f"{duration}_bucket", **of_base, error_type="", le="+Inf")
    grown.by(1, f"{duration}_count", gen_ai_request_model="", error_type="model_not_found")
    grown.by(1, f"{families.FIRST_TOKEN.name}_count", **of_base)
    grown.by(1, f"{families.OUTPUT_TOKEN.name}_count", **of_base)
    grown.by(7, "tunewarden_tokens_total", base=servers.LOCAL_BASE, direction="input")
    grown.by(6 + 4, "tunewarden_tokens_total", base=servers.LOCAL_BASE, direction="output")
    grown.by(7, REQUESTS, method="POST", route=CHAT, status="200")
    grown.by(1, REQUESTS, method="POST", route=CHAT, status="404")


def test_a_client_that_leaves_is_an_error_of_its_own(server: Server) -> None:
    model = server.make_model().id
    grown = Growth(server)
    with server.client() as client:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            extra_body={"fake": {"chunks": 100_000, "pause": 0.01}},
        )
        next(iter(answer))
        grown.until(1, "tunewarden_requests_in_flight")
        answer.close()
    grown.by(1, f"{families.DURATION.name}_count", error_type="client_disconnected")
    grown.until(0, "tunewarden_requests_in_flight")


def test_other_routes_are_counted_as_templates(server: Server) -> None:
    model = server.make_model().id
    grown = Growth(server)
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200
    assert server.get("/v1/models", key="sk-unknown").status == 401
    assert server.get(f"/no/such/{SUFFIX}", key=server.owner_key).status == 404
    grown.by(1, REQUESTS, route="/v1/models/{model_id}", method="GET", status="200")
    grown.by(1, REQUESTS, route="other", status="401")
    grown.by(1, REQUESTS, route="other", status="404")


def test_a_deletion_is_counted_with_its_steps_and_unerased_until_it_is_not(server: Server) -> None:
    model = server.make_model().id
    assert _chat(server, model) == 200
    grown = Growth(server)
    server.client().models.delete(model)
    grown.by(1, "tunewarden_deletions_total", kind="model")
    for step in ("fence", "evict", "erase_key", "log", "finish", "erase_blobs"):
        grown.by(1, "tunewarden_deletion_step_seconds_count", step=step)
    grown.by(1, "tunewarden_fence_wait_seconds_count")
    grown.by(WORKERS, "tunewarden_fence_endings_total")
    grown.by(2, "tunewarden_log_entries")  # the deletion, and that its blobs are erased
    grown.until(0, "tunewarden_deletions_unerased")
    last = scrape(server)
    assert last.total("tunewarden_deletions_pending") == 0
    assert last.total("tunewarden_oldest_unerased_seconds") == 0


def test_counters_do_not_go_backwards_when_workers_are_killed(server: Server) -> None:
    model = server.make_model().id
    grown = Growth(server)
    for _ in range(4 * WORKERS):
        assert _chat(server, model) == 200
    grown.by(4 * WORKERS, REQUESTS, route=CHAT, status="200")
    before = scrape(server).counters()
    grown = Growth(server)
    for worker in server.running("tunewarden.server.worker"):
        os.kill(worker, signal.SIGKILL)
        now = scrape(server).counters()
        assert {key for key, value in before.items() if now[key] < value} == set()
    grown.by(WORKERS, RESTARTS, process="worker")
    wait_until(lambda: _answers(server), "one of their successors answers")
    assert _chat(server, model) == 200
    grown.by(1, REQUESTS, route=CHAT, status="200")
    now = scrape(server).counters()
    assert {key for key, value in before.items() if now[key] < value} == set()


def _answers(server: Server) -> bool:
    try:
        return server.get("/readyz").status == 200
    except OSError:
        return False


def _accesses(server: Server) -> dict[str, dict[str, Any]]:
    """Return what the access log says, by the requests' ids."""
    lines = [json.loads(line) for line in server.log().splitlines()]
    return {one["request_id"]: one for one in lines if one["logger"] == "tunewarden.access"}


def _example() -> dict[str, Any]:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "monitor.md"
    found: dict[str, Any] = json.loads(
        page.read_text("utf-8").split("```json\n")[1].split("```")[0]
    )
    return found


def test_accesses_are_logged_and_nothing_that_a_client_named_or_sent(server: Server) -> None:
    model = server.make_model(suffix=SUFFIX).id
    asked = {"model": model, "messages": [{"role": "user", "content": f"I am {SUFFIX}"}]}
    chat = server.post(CHAT, asked)
    listed = server.get(f"/v1/models/{model}?note={SUFFIX}", key=server.owner_key)
    refused = server.get(f"/v1/models/{SUFFIX}", key=server.owner_key)
    lost = server.get(f"/{SUFFIX}", key=server.owner_key)
    deleted = server.request("DELETE", f"/v1/models/{model}", key=server.owner_key)
    ids = [str(one.header("x-request-id")) for one in (chat, listed, refused, lost, deleted)]
    wait_until(lambda: _accesses(server).keys() >= set(ids), "all are logged")
    found = [_accesses(server)[request_id] for request_id in ids]
    assert [one["route"] for one in found] == [CHAT, *2 * [MODEL], "other", MODEL]
    assert [one["status"] for one in found] == [200, 200, 404, 404, 200]
    with server.app.database.read() as tx:
        (number,) = tx.row("SELECT n FROM artifacts WHERE id = :id", id=model) or ()
    first = found[0]
    assert (first["base"], first["artifact"]) == (servers.LOCAL_BASE, number)
    assert first["bytes"] > len(chat.body)
    assert list(first) == list(_example()), "as the page on monitoring shows it"
    for secret in (SUFFIX, server.owner_key, model, servers.ORGANIZATION, "note="):
        assert secret not in server.log()


def test_the_runners_successor_answers_scrapes(server: Server) -> None:
    grown = Growth(server)
    (runner,) = server.running("tunewarden.server.runner")
    os.kill(runner, signal.SIGKILL)
    # A scrape in between waits in the socket's backlog.
    grown.by(1, RESTARTS, process="runner")


def test_models_make_no_more_series_and_nobody_is_named(server: Server) -> None:
    """Many rows, and traffic on many models: the same series as with one."""
    models = [server.make_model(suffix=f"{SUFFIX}{number}").id for number in range(12)]
    grown = Growth(server)
    assert _chat(server, models[0]) == 200
    grown.by(1, REQUESTS, route=CHAT, status="200")
    before = scrape(server).series()
    _copy_rows(server, models[0])
    for model in models:
        assert _chat(server, model) == 200
    grown.by(1 + len(models), REQUESTS, route=CHAT, status="200")
    after = scrape(server).series()
    rows = server.app.database.peek("SELECT COUNT(*) FROM models")
    print(
        f"{rows[0] if rows else 0} models, {len(after)} series; with {len(models)}: {len(before)}"
    )
    assert rows is not None
    assert rows[0] > MANY
    assert after == before
    text = scrapes.text(server)
    assert SUFFIX not in text
    assert servers.ORGANIZATION not in text


def _copy_rows(server: Server, model: str) -> None:
    """Register many models more: the rows of one, under other numbers and ids."""
    counted = (
        f"WITH RECURSIVE more (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM more WHERE i < {MANY})"
    )
    with server.app.database.write() as tx:
        tx.run(
            f"{counted} INSERT INTO artifacts SELECT a.n + 1000000 + i, kind, id || '-' || i, internal_id || i,"
            " organization_id, project_id, state, epoch, key_id, manifest, manifest_sha256, created_by,"
            " created_at, salt FROM artifacts a, more WHERE id = :id",
            id=model,
        )
        tx.run(
            f"{counted} INSERT INTO models (n, base, suffix, job_n, step, loaded_by)"
            " SELECT m.n + 1000000 + i, base, suffix, job_n, step, loaded_by"
            " FROM models m JOIN artifacts a ON a.n = m.n, more WHERE a.id = :id",
            id=model,
        )


def test_every_metric_is_there_that_is_declared_and_no_other(server: Server) -> None:
    found = {family.name for family in scrape(server).families}
    assert found == {family.name.removesuffix("_total") for family in families.FAMILIES}


def test_only_metrics_are_there_and_only_there(server: Server) -> None:
    url = scrapes.address(server).removesuffix("/metrics")
    for other in ("/", "/v1/models", "/metrics/x"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url + other, timeout=servers.WAIT_SECONDS)
        caught.value.close()
        assert caught.value.code == 404
    assert server.get("/metrics", key=server.owner_key).status == 404

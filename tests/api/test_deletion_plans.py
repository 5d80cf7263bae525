"""What a plan tells of use, engines and exports, and use as a blocker where the organization asks for that."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.cli import in_process
from tests.support import administration, servers, wide_models
from tests.support.servers import LOCAL_BASE, Server, wait_until

SETTINGS = "/deletion_settings"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("plans") / "data"
    with servers.serving(data, local_base=True, workers=2) as running:
        wait_until(lambda: _complete(running, LOCAL_BASE) == 200, "the engine")
        yield running


@pytest.fixture(scope="module")
def admin(server: Server) -> str:
    return administration.make_admin_key(server.app)


@pytest.fixture
def guarded(server: Server, admin: str) -> Iterator[Server]:
    """A server whose organization keeps models for five minutes after their last use."""
    asked = administration.ask(server, "POST", SETTINGS, admin, {"in_use_minutes": 5})
    assert asked.json == {"object": "organization.deletion_settings", "in_use_minutes": 5}
    yield server
    administration.ask(server, "POST", SETTINGS, admin, {"in_use_minutes": None})


def _complete(server: Server, model: str) -> int:
    body = {"model": model, "prompt": "Hello", "max_tokens": 2}
    return server.post("/v1/completions", body).status


def _plan(server: Server, model: str) -> dict[str, Any]:
    return server.get(f"/v1/models/{model}/deletion_plan", key=server.owner_key).json


def _refused(server: Server, model: str) -> openai.APIStatusError:
    with pytest.raises(openai.ConflictError) as caught:
        server.client(max_retries=0).models.delete(model)
    return caught.value


def _is_used(server: Server, model: str) -> bool:
    """Return whether a row tells a use that has ended."""
    return bool(_plan(server, model)["usage"]["requests_last_hour"])


def test_a_plan_tells_use_engines_and_exports_and_the_command_shows_them(server: Server) -> None:
    model = server.make_model().id
    first = _plan(server, model)
    assert first["usage"]["last_used_at"] is None
    assert first["engines"][0]["state"] == "not_loaded"
    assert (first["exports"], first["aliases"], first["jobs"]) == ([], [], [])
    assert [_complete(server, model) for _ in range(3)] == [200] * 3
    wait_until(lambda: _plan(server, model)["usage"]["requests_last_hour"] == 3, "it is written")
    used = _plan(server, model)
    assert used["usage"]["requests_last_day"] == 3
    assert used["engines"][0]["state"] == "ready"
    assert used["fingerprint"] == first["fingerprint"], "use changes nothing of what would go"
    server.client().get(f"/models/{model}/content", cast_to=bytes)
    named = server.post("/v1/aliases", {"name": f"alias-{model[-8:]}", "model": model})
    assert named.status == 200
    now = _plan(server, model)
    assert [one["model"] for one in now["exports"]] == [model]
    assert now["exports"][0]["exported_by"].startswith("key_")
    assert now["aliases"] == [f"alias-{model[-8:]}"]
    assert now["fingerprint"] != first["fingerprint"]
    dry = server.client().models.delete(model, extra_query={"dry_run": True})
    assert dry.model_extra is not None
    assert dry.model_extra["plan"]["exports"] == now["exports"]
    said = in_process.on(server, "models", "delete", model, "--dry-run").stdout
    for line in (
        "requests in the last hour: 3",
        "engine embedded: ready",
        f"export that stays: {model}, ",
        f"alias that loses it: alias-{model[-8:]}",
    ):
        assert line in said


def test_use_blocks_nothing_unless_the_organization_asks_for_it(server: Server) -> None:
    model = server.make_model().id
    assert _complete(server, model) == 200
    assert server.client().models.delete(model).deleted


def test_a_model_that_was_just_used_is_deleted_by_force_only(guarded: Server) -> None:
    model, unused = guarded.make_model().id, guarded.make_model().id
    assert _complete(guarded, model) == 200
    wait_until(lambda: _is_used(guarded, model), "its use is written")
    error = _refused(guarded, model)
    assert error.code == "in_use"
    assert error.response.headers["x-should-retry"] == "false"
    plan = _plan(guarded, model)
    assert [(one["type"], one["forcible"]) for one in plan["blockers"]] == [("in_use", True)]
    if_match = {"If-Match": f'"{plan["fingerprint"]}"'}
    assert guarded.client().models.delete(unused).deleted
    forced = guarded.client().models.delete(
        model, extra_headers=if_match, extra_query={"force": True}
    )
    assert forced.deleted


def test_a_model_is_in_use_until_so_many_minutes_after_its_last_use(guarded: Server) -> None:
    model = guarded.make_model().id
    assert _complete(guarded, model) == 200
    wait_until(lambda: _is_used(guarded, model), "its use is written")
    for minutes, blocks in ((4.9, True), (5.1, False)):
        with guarded.app.database.write() as tx:
            tx.run(
                "UPDATE usage_series SET last_used_at = :at WHERE model_id = :id",
                at=tx.now_micros - round(minutes * 60_000_000),
                id=model,
            )
        assert bool(_plan(guarded, model)["blockers"]) == blocks
    assert guarded.client().models.delete(model).deleted


def test_what_runs_in_any_worker_is_use_before_it_is_counted(guarded: Server) -> None:
    wide_models.add_wide_base(guarded, guarded.data.parent / "wide")
    model = wide_models.make_wide_model(guarded, wide_models.wide_adapter())
    url = f"{guarded.url}/models/{model.id}/content"
    headers = {"authorization": f"Bearer {guarded.owner_key}"}
    with httpx2.stream("GET", url, headers=headers, timeout=30) as response:
        pieces = response.iter_bytes(1024)
        assert next(pieces)
        # Either worker may be asked; one of them runs it.
        assert {_refused(guarded, model.id).code for _ in range(8)} == {"in_use"}
        assert not _is_used(guarded, model.id), "the control: no row tells it"
    wait_until(lambda: not _plan(guarded, model.id)["blockers"], "it has ended")
    assert guarded.client().models.delete(model.id).deleted


def test_what_this_worker_has_not_written_yet_is_use(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with servers.serving(data, local_base=True, workers=1) as alone:
        wait_until(lambda: _complete(alone, LOCAL_BASE) == 200, "the engine")
        key = administration.make_admin_key(alone.app)
        administration.ask(alone, "POST", SETTINGS, key, {"in_use_minutes": 1})
        models = [alone.make_model().id for _ in range(10)]
        for model in models:
            assert _complete(alone, model) == 200
            assert _refused(alone, model).code == "in_use"


@pytest.mark.parametrize("minutes", [0, -1, 525_601, "5", 1.5, True])
def test_a_setting_that_is_none_is_refused(server: Server, admin: str, minutes: object) -> None:
    asked = administration.ask(server, "POST", SETTINGS, admin, {"in_use_minutes": minutes})
    assert asked.status == 400
    assert asked.error["param"] == "in_use_minutes"
    assert administration.ask(server, "GET", SETTINGS, admin).json["in_use_minutes"] is None


def test_the_command_shows_and_sets_it(server: Server) -> None:
    def run(*options: str) -> str:
        ran = in_process.on(server, "deletions", "settings", *options)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    assert run() == "in_use_minutes: -"
    assert run("--in-use-minutes", "7") == "in_use_minutes: 7"
    assert run() == "in_use_minutes: 7"
    assert run("--use-blocks-nothing") == "in_use_minutes: -"
    both = in_process.on(
        server, "deletions", "settings", "--use-blocks-nothing", "--in-use-minutes", "7"
    )
    assert both.returncode == 2

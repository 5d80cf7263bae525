"""The canary: on the real engine, through the server's own socket; and controls in which it must fail."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import engines, scrapes, servers
from tests.support.administration import make_admin_key
from tests.support.scrapes import scrape
from tests.support.servers import Server, wait_until

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.identity.organizations import INTERNAL_ID, INTERNAL_NAME
from tunewarden.metrics import families

RUNS = families.CANARY_RUNS.name
FAILED = families.CANARY_FAILED.name
SETTINGS = {**scrapes.SETTINGS, "canary_seconds": 1}
FAKES = Path(__file__).parents[1] / "fakes"


def _runs(server: Server, result: str) -> float:
    return scrape(server).total(RUNS, result=result)


def _doctor(server: Server) -> tuple[int, list[dict[str, Any]]]:
    """Return doctor's exit status, and what it found of the canary."""
    done = server.cli("doctor", "--json", settings={"TUNEWARDEN_CANARY_SECONDS": "1"})
    found = json.loads(done.stdout)["data"]
    return done.returncode, [one for one in found if one["what"] == "canary"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the real engine, whose canary has passed twice."""
    data = tmp_path_factory.mktemp("canary") / "data"
    with engines.serving(data, workers=2, settings=SETTINGS) as running:
        wait_until(lambda: _runs(running, "passed") >= 2, f"it passes twice: {running.log()}")
        yield running


def test_it_passes_on_the_real_engine_and_says_how_long_that_took(server: Server) -> None:
    found = scrape(server)
    assert found.total(RUNS, result="failed") == 0, server.log()
    assert found.total(FAILED, base=engines.BASE) == 0
    assert found.total(families.CANARY_OVERDUE.name) == 0
    for until in ("answered", "erased"):
        counted = f"{families.CANARY_DELETION.name}_count"
        assert found.total(counted, until=until) >= 2
    assert "the canary of demo-base passed: DELETE answered after" in server.log()
    status, (finding,) = _doctor(server)
    assert status == ExitCode.DONE
    assert finding["found"].startswith("demo-base: passed at ")


def test_nothing_of_it_is_in_what_clients_and_their_organizations_see(server: Server) -> None:
    models = [model.id for model in server.client().models.list()]
    assert models == [engines.BASE]
    assert server.get("/v1/deletions", key=server.owner_key).json["data"] == []
    admin = make_admin_key(server.app)
    text = server.get("/v1/organization/audit_logs?limit=100", key=admin).body.decode()
    assert INTERNAL_NAME not in text
    assert INTERNAL_ID not in text
    used = server.get("/v1/organization/usage/completions?start_time=0", key=admin).body.decode()
    assert INTERNAL_ID not in used
    # The one request of each start: a test's own, on the base.
    asked = scrape(server)
    begun = asked.total(f"{families.DURATION.name}_count", error_type="")
    engines.say(server.client(), engines.BASE, tokens=1)
    wait_until(
        lambda: scrape(server).total(f"{families.DURATION.name}_count", error_type="") == begun + 1,
        "the client's request is counted, and no other",
    )


def test_its_models_are_in_no_place_of_the_inventory(server: Server) -> None:
    done = server.cli("doctor", "--deep", settings={"TUNEWARDEN_CANARY_SECONDS": "1"})
    assert done.returncode == ExitCode.DONE, done.stdout


def test_what_it_cannot_do_is_no_failure_and_is_said(tmp_path: Path) -> None:
    # The first run, whatever it finds, leaves no request to the second one.
    kind = servers.WithoutTorch
    settings = {**SETTINGS, "requests_per_minute": 1}
    with servers.serving(tmp_path / "data", settings=settings, local_base=True, kind=kind) as run:
        wait_until(lambda: _runs(run, "not_done") >= 1, run.log())
        assert _runs(run, "failed") == 0
        assert "the canary of tiny-base was not done: " in run.log()


def test_control_it_fails_where_a_deletion_leaves_blobs_and_weights_and_a_stream_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES / "leaving"))
    with engines.serving(tmp_path / "data", workers=1, settings=SETTINGS) as leaving:
        wait_until(lambda: _runs(leaving, "failed") >= 1, "it fails")
        assert _runs(leaving, "passed") == 0, leaving.log()
        assert scrape(leaving).total(FAILED, base=engines.BASE) == 1
        status, (finding,) = _doctor(leaving)
        assert status == ExitCode.FAILED
        assert not finding["is_well"]
        for said in (finding["found"], leaving.log()):
            assert "demo-base: FAILED at " in said or "the canary of demo-base FAILED: " in said
            assert "blobs: 2 are left" in said
            assert "engines: one has the weights" in said
            assert re.search(r"stream: [1-9][0-9]* tokens came after the answer", said)

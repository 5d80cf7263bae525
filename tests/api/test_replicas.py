"""Several engines of one base, as users and operators see them: joining, leaving, failing, and deletions over all.

The engines are stand-ins with the real plugin; `make test-vllm` runs two real ones.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.cli import in_process
from tests.fakes import vllm
from tests.fakes.vllm_server import digest_of
from tests.support import bases, fake_engines, fleets, scrapes, servers
from tests.support.fake_engines import FakeEngine
from tests.support.pushed_models import Pushed
from tests.support.scrapes import Scrape, scrape
from tests.support.servers import Server, WithoutTorch

from tunewarden.app import App
from tunewarden.gateway.fleet import ranked
from tunewarden.metrics import families
from tunewarden.registry import replicas

MODELS = 6
# What is waited for where an engine is gone.
LEASE_SECONDS = 2.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("replicas") / "data"
    settings = {**scrapes.SETTINGS, "engine_lease_seconds": LEASE_SECONDS}
    with servers.serving(data, workers=2, kind=WithoutTorch, settings=settings) as found:
        yield found


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "engine.key"
    file.write_text(vllm.KEY)
    return file


@pytest.fixture(scope="module")
def engines() -> Iterator[list[FakeEngine]]:
    """Both run when a test ends."""
    with fake_engines.running(2, slots=MODELS) as found:
        yield found


@pytest.fixture
def pushed(
    server: Server, engines: list[FakeEngine], key_file: Path, request: pytest.FixtureRequest
) -> Pushed:
    found = Pushed(server, f"b{abs(hash(request.node.name)) % 10**9}")
    urls = [option for one in engines for option in ("--engine-url", one.url)]
    done = in_process.on(
        server, "bases", "add", found.base, *urls, "--engine-key-file", str(key_file)
    )
    assert done.returncode == 0, done.stderr
    return found


def _imported(pushed: Pushed, directory: Path, count: int = MODELS) -> dict[str, str]:
    """Import models; return what each says. One of `MODELS` prefers another replica than the rest, else all may."""
    made: dict[str, str] = {}
    preferred = set()
    numbers = tuple(one.n for one in replicas.of(pushed.server.app.database, pushed.base))
    while len(made) < count:
        files = bases.adapter(f"model {len(made)}")
        model = servers.import_adapter(
            pushed.server.app, pushed.server.owner_key, adapter=files, base=pushed.base
        )
        preferred.add(ranked(models_by_id(pushed.server.app, model.id), numbers)[0])
        if len(made) == MODELS - 1 and len(preferred) == 1:
            continue
        made[model.id] = digest_of(files.weights)
    return made


def _listed(pushed: Pushed) -> dict[str, dict[str, Any]]:
    done = in_process.on(pushed.server, "replicas", "list", pushed.base, "--json")
    return {one["name"]: one for one in json.loads(done.stdout)["data"]}


def _use(pushed: Pushed, models: dict[str, str]) -> None:
    for model, says in models.items():
        assert pushed.said(model) == says


def test_models_spread_over_the_replicas_and_a_deletion_asks_each(
    pushed: Pushed, tmp_path: Path
) -> None:
    models = _imported(pushed, tmp_path)
    for _ in range(2):
        _use(pushed, models)
    assert pushed.said(pushed.base) == vllm.BASE
    seen = []
    for model in models:
        engines = pushed.deleted(model)
        assert [one.engine for one in engines] == [f"vllm:{pushed.base}/1", f"vllm:{pushed.base}/2"]
        seen += [(one.engine, one.how) for one in engines]
        with pytest.raises(openai.NotFoundError):
            pushed.said(model)
    assert {how for _, how in seen} == {"zeroed", "not_loaded"}
    assert len([how for _, how in seen if how == "zeroed"]) == MODELS
    assert len({engine for engine, how in seen if how == "zeroed"}) == 2


def test_a_replica_joins_and_leaves_a_running_server(
    pushed: Pushed, engines: list[FakeEngine], key_file: Path, tmp_path: Path
) -> None:
    models = _imported(pushed, tmp_path)
    _use(pushed, models)
    done = in_process.on(pushed.server, "replicas", "remove", pushed.base, "1", "--json")
    assert done.returncode == 0, done.stderr
    removed = json.loads(done.stdout)
    assert removed["id"] == f"{pushed.base}/1"
    assert 0 < removed["evicted"] < MODELS
    assert list(_listed(pushed)) == ["2"]
    _use(pushed, models)
    # What it evicted it refuses until it is started anew.
    again = ["replicas", "add", pushed.base, "--engine-url", engines[0].url]
    again += ["--engine-key-file", str(key_file)]
    done = in_process.on(pushed.server, *again)
    assert done.returncode == 5
    assert "Start it anew" in done.stderr
    engines[0].stop()
    engines[0].start()
    done = in_process.on(pushed.server, *again)
    assert (done.returncode, done.stdout) == (0, f"{pushed.base}/1\n"), done.stderr
    engines[1].stop()
    try:
        _use(pushed, models)
    finally:
        engines[1].start()


def test_a_replica_that_does_not_answer_is_removed_when_its_lease_is_over(
    pushed: Pushed, engines: list[FakeEngine], tmp_path: Path
) -> None:
    models = _imported(pushed, tmp_path)
    _use(pushed, models)
    engines[0].stop()
    try:
        done = in_process.on(pushed.server, "replicas", "remove", pushed.base, "1")
        assert done.returncode == 0, done.stderr
        assert list(_listed(pushed)) == ["2"]
        _use(pushed, models)
    finally:
        engines[0].start()


def test_a_deletion_ends_with_the_lease_of_a_replica_that_is_down(
    pushed: Pushed, engines: list[FakeEngine], tmp_path: Path
) -> None:
    models = _imported(pushed, tmp_path)
    _use(pushed, models)
    engines[1].stop()
    try:
        first, *others = models
        found = {one.engine: one.how for one in pushed.deleted(first)}
        assert found[f"vllm:{pushed.base}/1"] in {"zeroed", "not_loaded"}
        assert found[f"vllm:{pushed.base}/2"] == "lease_ended"
        with pytest.raises(openai.NotFoundError):
            pushed.said(first)
        _use(pushed, {other: models[other] for other in others})
    finally:
        engines[1].start()


def _states_of(pushed: Pushed, model: str) -> dict[str, tuple[str, str | None]]:
    reply = pushed.server.get(f"/v1/models/{model}/engines", key=pushed.server.owner_key)
    listed = json.loads(reply.body)["data"]
    return {one["engine"].partition("/")[2]: (one["state"], one["reason"]) for one in listed}


def test_the_state_of_a_model_in_each_replica_is_told(
    pushed: Pushed, engines: list[FakeEngine], tmp_path: Path
) -> None:
    [(model, says)] = _imported(pushed, tmp_path, 1).items()
    assert set(_states_of(pushed, model).values()) == {("not_loaded", None)}
    app = pushed.server.app
    internal_id = models_by_id(app, model)
    order = ranked(internal_id, tuple(one.n for one in replicas.of(app.database, pushed.base)))
    names = {one.n: one.name for one in replicas.of(app.database, pushed.base)}
    first, second = (names[n] for n in order)
    engines[int(first) - 1].stop()
    try:
        assert pushed.said(model, max_retries=10) == says
        found = _states_of(pushed, model)
        assert (found[first], found[second]) == (("unreachable", None), ("ready", None))
        assert _adapters(scrape(pushed.server), pushed.base, first, "unreachable") == 1
    finally:
        engines[int(first) - 1].start()
    state, reason = _states_of(pushed, model)[first]
    assert (state, bool(reason)) == ("failed", True)
    shown = in_process.on(pushed.server, "models", "show", model)
    assert f"engine {pushed.base}/{second}: ready" in shown.stdout
    assert f"engine {pushed.base}/{first}: failed: " in shown.stdout
    scraped = scrape(pushed.server)
    assert _adapters(scraped, pushed.base, first, "failed") == 1
    assert _adapters(scraped, pushed.base, second, "ready") >= 1
    base = pushed.server.get(f"/v1/models/{pushed.base}/engines", key=pushed.server.owner_key)
    assert base.status == 400


def _adapters(scraped: Scrape, base: str, replica: str, state: str) -> float:
    return scraped.total(families.ADAPTERS.name, base=base, replica=replica, state=state)


def models_by_id(app: App, model: str) -> str:
    row = app.database.peek("SELECT internal_id FROM artifacts WHERE id = :id", id=model)
    assert row is not None
    return str(row[0])


def test_a_killed_and_a_frozen_replica_cost_no_request_that_had_no_byte(
    pushed: Pushed, engines: list[FakeEngine], tmp_path: Path
) -> None:
    models = _imported(pushed, tmp_path)
    _use(pushed, models)
    engines[0].freeze()
    try:
        failed: list[str] = []

        def ask(model: str) -> None:
            try:
                assert pushed.said(model) == models[model]
            except Exception as error:  # noqa: BLE001  reported below
                failed.append(f"{model}: {error!r}")

        asking = [threading.Thread(target=ask, args=(model,)) for model in models]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert failed == []
    finally:
        engines[0].thaw()
    engines[1].stop()
    try:
        # The other one is back after a probe.
        for model, says in models.items():
            assert pushed.said(model, max_retries=10) == says
    finally:
        engines[1].start()


def test_a_deletion_reaches_four_replicas_and_one_may_die(
    server: Server, key_file: Path, tmp_path: Path
) -> None:
    with fake_engines.running(4) as engines:
        pushed = Pushed(server, "four")
        urls = [option for one in engines for option in ("--engine-url", one.url)]
        done = server.cli("bases", "add", pushed.base, *urls, "--engine-key-file", str(key_file))
        assert done.returncode == 0, done.stderr
        victim, other = _imported(pushed, tmp_path, 2).items()
        fleets.deleted_everywhere_while_one_dies(
            pushed,
            victim=victim[0],
            other=other[0],
            says=other[1],
            kill_first=engines[0].stop,
        )


def test_an_engine_that_cannot_serve_each_model_is_refused(pushed: Pushed, key_file: Path) -> None:
    with fake_engines.running(1, slots=0) as [stock]:
        done = in_process.on(
            pushed.server,
            "replicas",
            "add",
            pushed.base,
            "--engine-url",
            stock.url,
            "--engine-key-file",
            str(key_file),
        )
    assert done.returncode == 1
    assert "runs without tunewarden-vllm" in done.stderr
    done = in_process.on(
        pushed.server, "replicas", "add", "nowhere", "--engine-url", "http://127.0.0.1:9/v1"
    )
    assert done.returncode == 3

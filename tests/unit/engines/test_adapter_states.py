"""What is said of a model in each engine: what the engine answers, and what was noted of its last load."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.clock import HandClock
from tests.fakes.engine import FakeEngine
from tests.support import servers
from tests.support.servers import LOCAL_BASE

from tunewarden.app import App
from tunewarden.engines.adapter_states import AdapterCount, AdapterState, AdapterStates
from tunewarden.engines.port import Evicted, RemoteControl, Residents
from tunewarden.errors import Error, Kind
from tunewarden.registry import bases, replicas
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.models import Model
from tunewarden.registry.replicas import Replica

NOTHING: frozenset[str] = frozenset()


class Told(RemoteControl):
    """A replica that says what a test has set; None: it does not answer."""

    def __init__(self, has: Residents | None) -> None:
        self._has = has

    def residents(self, *, within_seconds: float) -> Residents:
        del within_seconds
        if self._has is None:
            raise Error(Kind.UNAVAILABLE, "It does not answer.")
        return self._has

    def models(self) -> list[str]:
        raise NotImplementedError

    def running(self) -> int:
        raise NotImplementedError

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        raise NotImplementedError


@pytest.fixture
def app(tmp_path: Path) -> App:
    servers.prepare_local_base(tmp_path / "data")
    app = servers.open_data(tmp_path / "data")
    shapes = bases.list_all(app.database)[0].module_shapes()
    with app.database.write() as tx:
        url = "http://127.0.0.1:9/v1"
        bases.add(
            tx,
            name="far",
            kind=BaseKind.REMOTE,
            location=url,
            engine_model="far",
            modules=shapes,
            rank_max=16,
        )
        for port in range(10, 14):
            replicas.add(tx, base="far", url=f"http://127.0.0.1:{port}/v1", rank_max=16)
    return app


def _model(app: App, base: str) -> Model:
    key = app.config.owner_key.read_text("utf-8").strip()
    return servers.import_adapter(app, key, base=base)


def _control(said: dict[str, Residents | None]) -> Callable[[Base, Replica, str], RemoteControl]:
    return lambda _base, replica, _label: Told(said[replica.name])


def test_each_replica_has_its_own_state_of_a_model(app: App) -> None:
    model = _model(app, "far")
    has = frozenset({model.internal_id})
    said = {
        "1": Residents(has, NOTHING),
        "2": Residents(NOTHING, has),
        "3": Residents(NOTHING, NOTHING),
        "4": None,
        "5": Residents(NOTHING, NOTHING),
    }
    third, fifth = (one.n for one in replicas.of(app.database, "far") if one.name in {"3", "5"})
    for n in (third, fifth):
        replicas.note_load(app.database, n, model.n, "a", is_loaded=False)
        replicas.note_failure(app.database, n, model.n, "No slot is free.")
    replicas.note_failure(app.database, fifth, model.n, None)  # the next one did not fail
    states = AdapterStates(app.database, FakeEngine(HandClock()), _control(said))
    assert [(one.engine, one.state, one.reason) for one in states.of(model)] == [
        ("far/1", AdapterState.READY, None),
        ("far/2", AdapterState.LOADING, None),
        ("far/3", AdapterState.FAILED, "No slot is free."),
        ("far/4", AdapterState.UNREACHABLE, None),
        ("far/5", AdapterState.NOT_LOADED, None),
    ]
    counts = states.counts()
    assert AdapterCount("far", "1", AdapterState.READY, 1) in counts
    assert AdapterCount("far", "2", AdapterState.LOADING, 1) in counts
    assert AdapterCount("far", "3", AdapterState.FAILED, 1) in counts
    assert AdapterCount("far", "4", AdapterState.UNREACHABLE, 1) in counts
    with app.database.write() as tx:
        replicas.forget_models(tx, [model.n])
    assert replicas.count_failures(app.database, third) == 0


def test_a_failure_of_a_load_that_is_not_on_record_is_not_noted(app: App) -> None:
    model = _model(app, "far")
    replicas.note_failure(app.database, 1, model.n, "It failed.")
    assert replicas.failure_of(app.database, 1, model.n) is None


def test_the_embedded_engine_has_a_model_or_not_or_does_not_answer(app: App) -> None:
    model, engine = _model(app, LOCAL_BASE), FakeEngine(HandClock())
    states = AdapterStates(app.database, engine, _control({}))
    assert states.of(model)[0].state is AdapterState.NOT_LOADED
    engine.load(model.internal_id)
    assert [(one.engine, one.state) for one in states.of(model)] == [
        ("embedded", AdapterState.READY)
    ]
    silent = AdapterStates(app.database, app.engine, _control({}))  # no process listens
    assert silent.of(model)[0].state is AdapterState.UNREACHABLE


def test_a_replica_that_is_leaving_takes_no_load(app: App) -> None:
    model = _model(app, "far")
    replicas.note_load(app.database, 1, model.n, "a", is_loaded=True)
    with app.database.write() as tx:
        leaving = replicas.leave(tx, "far", "1")
    for incarnation in ("a", "b"):
        with pytest.raises(Error) as refused:
            replicas.note_load(app.database, 1, model.n, incarnation, is_loaded=False)
        assert refused.value.code == "engine_leaving"
    assert replicas.loads_of(app.database, 1) == [model.n]
    with app.database.write() as tx:
        replicas.remove(tx, leaving)
    assert "1" not in {one.name for one in replicas.of(app.database, "far")}
    with pytest.raises(Error):
        replicas.note_load(app.database, 1, model.n, "a", is_loaded=False)

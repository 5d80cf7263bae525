"""Whether engines answer, as a page shows it: who opens it often asks no engine each time."""

from tests.fakes.clock import HandClock
from tests.fakes.engine import FakeEngine
from tests.support.servers import LOCAL_BASE
from tests.unit.engines.test_adapter_states import Told, app

from tunewarden.app import App
from tunewarden.engines.adapter_states import AdapterStates
from tunewarden.engines.engines_seen import SEEN_SECONDS, EnginesSeen
from tunewarden.engines.port import RemoteControl, Residents
from tunewarden.registry.bases import Base
from tunewarden.registry.replicas import Replica

__all__ = ["app"]

SOME = Residents(frozenset({"m_of_somebody_else"}), frozenset())


def _full(*_: object) -> RemoteControl:
    return Told(SOME)


def test_engines_are_asked_once_in_a_while_and_their_models_are_not_told(app: App) -> None:
    asked: list[str] = []

    def control(_base: Base, replica: Replica, _label: str) -> RemoteControl:
        asked.append(replica.name)
        return Told(None if replica.name == "4" else SOME)

    states = AdapterStates(app.database, FakeEngine(HandClock()), control)
    seen, clock = EnginesSeen(), HandClock()
    first, *later = (seen.look(states, clock) for _ in range(10))
    assert all(one == first for one in later)
    assert sorted(asked) == ["1", "2", "3", "4", "5"]
    assert {name for name, is_up in first.items() if not is_up} == {"far/4"}
    assert all(isinstance(said, bool) for said in first.values())
    clock.sleep(SEEN_SECONDS)
    seen.look(states, clock)
    assert len(asked) == 10


def test_the_embedded_engine_answers_or_does_not(app: App) -> None:
    engine = FakeEngine(HandClock())
    engine.load_base(LOCAL_BASE, "")
    up = EnginesSeen().look(AdapterStates(app.database, engine, _full), HandClock())
    assert up[f"{LOCAL_BASE}/embedded"]
    silent = AdapterStates(app.database, app.engine, _full)  # no process listens
    assert f"{LOCAL_BASE}/embedded" not in EnginesSeen().look(silent, HandClock())

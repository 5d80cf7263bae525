"""What deletion and the runner ask of an engine: of the one behind a socket, and of the one in this process."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.fakes.clock import HandClock
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_server import ADAPTER_FILES
from tests.support.servers import wait_until

from tunewarden.clock import SystemClock
from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import NewAdapter
from tunewarden.engines.embedded_control import EngineVerbs
from tunewarden.engines.port import EngineControl, Eviction
from tunewarden.errors import Error

BASE = "base"
BOUND_SECONDS = 0.5
REPOSITORY = Path(__file__).parents[2]


class Running(Protocol):
    """An engine that runs, as those know it that delete, load models or break it."""

    @property
    def control(self) -> EngineControl:
        """Return it as the product knows it."""

    def incarnation(self) -> str:
        """Return what names this start of it."""

    def load(self, internal_id: str) -> bool:
        """Load a model; False for a name that it refuses."""

    def hang(self) -> None:
        """Answer nothing any more."""


class Process:
    """The driver, and the engine's stand-in behind its socket."""

    def __init__(self, directory: Path, *, is_dirty: bool) -> None:
        self._directory = directory
        path = directory / "engine.sock"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.engine_server", "--socket", str(path)],
            cwd=REPOSITORY,
            env={**os.environ, "TEST_RESIDUE": "1.5" if is_dirty else "0"},
        )
        self.control: EngineVerbs = EngineVerbs(path, directory / "scratch", SystemClock())
        wait_until(self._answers, "the engine answers")
        self.control.load_base(BASE, "somewhere")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.control.bases() == set()
        return False

    def incarnation(self) -> str:
        return self.control._state().incarnation

    def load(self, internal_id: str) -> bool:
        plain = self._directory / internal_id
        plain.mkdir(exist_ok=True)
        for name in ADAPTER_FILES:
            (plain / name).write_bytes(b"x")
        try:
            self.control._call("POST", paths.ADAPTERS, NewAdapter(internal_id, BASE, str(plain)))
        except Error:
            return False
        return True

    def hang(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Object:
    """The fake."""

    def __init__(self, *, is_dirty: bool) -> None:
        FakeEngine.forget()
        self.control: FakeEngine = FakeEngine(HandClock())
        self.control.is_dirty = is_dirty
        self.control.load_base(BASE, "somewhere")

    def incarnation(self) -> str:
        return self.control.incarnation

    def load(self, internal_id: str) -> bool:
        return self.control.load(internal_id)

    def hang(self) -> None:
        self.control.hangs = True


@contextlib.contextmanager
def running(kind: str, directory: Path, *, is_dirty: bool = False) -> Iterator[Running]:
    if kind == "fake":
        yield Object(is_dirty=is_dirty)
        return
    process = Process(directory, is_dirty=is_dirty)
    try:
        yield process
    finally:
        process.close()


@pytest.fixture(params=["embedded", "fake"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(kind: str, tmp_path: Path) -> Iterator[Running]:
    with running(kind, tmp_path) as one:
        yield one


def _evict(engine: Running, internal_id: str, loaded_by: str | None = None) -> Eviction:
    evicted = engine.control.evict(internal_id, loaded_by=loaded_by, within_seconds=BOUND_SECONDS)
    return evicted.how


def test_it_says_which_bases_and_models_it_has(engine: Running) -> None:
    assert engine.load("m_1")
    assert engine.load("m_2")
    assert engine.control.bases() == {BASE}
    assert sorted(engine.control.models()) == ["m_1", "m_2"]


def test_a_loaded_model_is_zeroed_and_its_name_refused_ever_after(engine: Running) -> None:
    assert engine.load("m_1")
    assert engine.load("m_2")
    assert _evict(engine, "m_1", engine.incarnation()) is Eviction.ZEROED
    assert engine.control.models() == ["m_2"]
    assert not engine.load("m_1")


def test_what_it_never_had_is_not_loaded_and_refused_all_the_same(engine: Running) -> None:
    assert _evict(engine, "m_1") is Eviction.NOT_LOADED
    assert _evict(engine, "m_2", engine.incarnation()) is Eviction.NOT_LOADED
    assert not engine.load("m_1")


def test_what_an_earlier_start_of_it_had_ended_with_that(engine: Running) -> None:
    assert _evict(engine, "m_1", "an engine that has ended") is Eviction.RESTARTED


def test_evicting_again_finds_nothing(engine: Running) -> None:
    assert engine.load("m_1")
    assert _evict(engine, "m_1", engine.incarnation()) is Eviction.ZEROED
    assert _evict(engine, "m_1", engine.incarnation()) is Eviction.NOT_LOADED


def test_one_that_hangs_is_ended_with_all_it_had(engine: Running) -> None:
    assert engine.load("m_1")
    engine.hang()
    assert _evict(engine, "m_2") is Eviction.RESTARTED
    assert engine.control.models() == []


def test_one_whose_weights_do_not_read_back_as_zeros_is_ended(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path, is_dirty=True) as engine:
        assert engine.load("m_1")
        assert _evict(engine, "m_1", engine.incarnation()) is Eviction.RESTARTED
        assert engine.control.models() == []


def test_the_fake_fails_as_often_as_a_test_wants() -> None:
    engine = FakeEngine(HandClock())
    engine.failures = 1
    with pytest.raises(Error, match="not evicted"):
        engine.evict("m_1", loaded_by=None, within_seconds=1)
    assert engine.evict("m_1", loaded_by=None, within_seconds=1).how is Eviction.NOT_LOADED

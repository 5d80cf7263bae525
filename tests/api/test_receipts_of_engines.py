"""What a receipt says of the engine: what was seen there, whichever way the model was lost (I17, D5)."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.chaos import fake_engine_server
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.support import engines, servers
from tests.support.servers import Server

from tunewarden.engine_protocol.messages import VERSION
from tunewarden_receipts import receipt

NOT_LOADED, ZEROED, RESTARTED = "not_loaded", "zeroed", "restarted"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngineServer]:
    data = tmp_path_factory.mktemp("receipts") / "data"
    with fake_engine_server.serving(data, workers=2) as server:
        yield server


def use(server: Server, model: str) -> None:
    """Ask the model once, until there is an engine that answers."""

    def answers() -> bool:
        try:
            engines.say(server.client(max_retries=0), model)
        except (openai.InternalServerError, openai.APIConnectionError):
            return False
        return True

    servers.wait_until(answers, "the model answers", engines.ENGINE_SECONDS)


def kill_engine(server: FakeEngineServer) -> None:
    """Kill the engine; return when another one has its bases."""
    pid = server.engine_pid()
    os.kill(pid, signal.SIGKILL)
    servers.wait_until(lambda: not servers.is_alive(pid), "the engine ends")
    servers.wait_until(server.has_engine, "another engine")


def seen(server: Server, model: str) -> str:
    """Delete a model through the SDK; return what its receipt says of the engine."""
    assert server.client().models.delete(model).deleted
    listed = server.get("/v1/deletions", key=server.owner_key).json["data"]
    assert isinstance(listed, list)
    (deletion,) = [one["id"] for one in listed if one.get("model") == model]
    stored = server.get(f"/v1/deletions/{deletion}/receipt", key=server.owner_key).body
    shown = receipt.verify(stored, server.get("/.well-known/tunewarden-log-key").body).disclosed
    assert shown is not None
    assert shown.engines is not None
    (engine,) = shown.engines
    print(f"the receipt says {engine.how}")
    return engine.how


def test_a_model_that_was_never_loaded(fake: FakeEngineServer) -> None:
    assert seen(fake, fake.make_model().id) == NOT_LOADED


def test_a_model_that_is_loaded(fake: FakeEngineServer) -> None:
    model = fake.make_model().id
    use(fake, model)
    assert seen(fake, model) == ZEROED


def test_a_model_whose_engine_was_killed(fake: FakeEngineServer) -> None:
    model, unused = fake.make_model().id, fake.make_model().id
    use(fake, model)
    kill_engine(fake)
    assert seen(fake, model) == RESTARTED
    assert seen(fake, unused) == NOT_LOADED


def test_a_model_whose_engine_and_workers_were_killed(fake: FakeEngineServer) -> None:
    model = fake.make_model().id
    use(fake, model)
    for pid in fake.workers():
        os.kill(pid, signal.SIGKILL)
    kill_engine(fake)
    servers.wait_until(fake._is_ready, "the workers are back")
    assert seen(fake, model) == RESTARTED


def test_a_model_that_was_loaded_again_by_a_later_engine(fake: FakeEngineServer) -> None:
    first, second = fake.make_model().id, fake.make_model().id
    for model in (first, second):
        use(fake, model)
    kill_engine(fake)
    use(fake, first)
    assert seen(fake, first) == ZEROED
    assert seen(fake, second) == RESTARTED
    # Of an engine that a worker had not met: the second engine's name is known from its load of `first`.
    kill_engine(fake)
    third = fake.make_model().id
    assert seen(fake, third) == NOT_LOADED


def test_a_model_of_a_server_that_was_killed(tmp_path: Path) -> None:
    with fake_engine_server.serving(tmp_path / "data", workers=1) as server:
        model, unused = server.make_model().id, server.make_model().id
        use(server, model)
        server.kill()
        server.start_again()
        assert seen(server, model) == RESTARTED
        assert seen(server, unused) == NOT_LOADED


def test_weights_that_do_not_read_back_as_zeros_are_not_called_zeroed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_RESIDUE", "0.5")
    with fake_engine_server.serving(tmp_path / "data", workers=1) as server:
        model, engine = server.make_model().id, server.engine_pid()
        use(server, model)
        assert seen(server, model) == RESTARTED
        assert not servers.is_alive(engine), "an engine that keeps weights is ended"


def test_an_engine_of_another_version_is_not_used_and_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_VERSION", str(VERSION + 1))
    with fake_engine_server.serving(tmp_path / "data", workers=1) as server:
        advice = "Install the same release of Tunewarden for both"
        servers.wait_until(lambda: advice in server.log(), "the log says what to do")
        assert "The engine answers." not in server.printed()
        model, engine = server.make_model().id, server.engine_pid()
        with pytest.raises(openai.InternalServerError, match="not available right now"):
            engines.say(server.client(max_retries=0), model)
        assert seen(server, model) == RESTARTED
        assert not servers.is_alive(engine), "what it says is no proof"


def test_the_real_engine_says_what_it_read_back(engine_server: Server) -> None:
    used, unused = (engines.import_model(engine_server, "zebra says") for _ in range(2))
    use(engine_server, used)
    assert seen(engine_server, used) == ZEROED
    assert seen(engine_server, unused) == NOT_LOADED

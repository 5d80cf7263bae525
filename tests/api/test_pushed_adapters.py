"""Fine-tuned models on a remote engine that adapters are pushed to: imports, loads, deletions and their receipts.

The engine is the stand-in with the real plugin; `make test-vllm` runs the same on a real vLLM.
"""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.cli import in_process
from tests.fakes import vllm
from tests.fakes.vllm_server import digest_of
from tests.support import bases, servers
from tests.support.fake_engines import SLOTS, FakeEngine
from tests.support.pushed_models import Pushed
from tests.support.servers import Server, WithoutTorch


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("pushed") / "data"
    # A machine that is busy with other tests must not end the lease: tests/api/test_engine_leases.py does.
    settings = {"engine_lease_seconds": 60}
    with servers.serving(data, workers=2, settings=settings, kind=WithoutTorch) as found:
        yield found


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "engine.key"
    file.write_text(vllm.KEY)
    return file


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    found = FakeEngine(SLOTS)
    yield found
    found.stop()


@pytest.fixture
def pushed(
    server: Server, engine: FakeEngine, key_file: Path, request: pytest.FixtureRequest
) -> Pushed:
    found = Pushed(server, f"b{abs(hash(request.node.name)) % 10**9}")
    assert found.add_base(engine.url, key_file) == ""
    return found


def test_a_model_is_imported_used_and_deleted(pushed: Pushed, tmp_path: Path) -> None:
    files = bases.adapter("first")
    model = pushed.imported(files.write(tmp_path / "first"), "a")
    assert pushed.said(model) == digest_of(files.weights)
    assert pushed.said(pushed.base) == vllm.BASE
    [engine] = pushed.deleted(model)
    assert (engine.engine, engine.how, engine.aborted) == (f"vllm:{pushed.base}", "zeroed", 0)
    with pytest.raises(openai.NotFoundError):
        pushed.said(model)
    # The same suffix again is another model, with its own weights.
    others = bases.adapter("second")
    again = pushed.imported(others.write(tmp_path / "second"), "a")
    assert again != model
    assert pushed.said(again) == digest_of(others.weights)


def test_a_model_that_was_never_used_is_not_loaded(pushed: Pushed) -> None:
    key = pushed.server.owner_key
    model = servers.import_adapter(pushed.server.app, key, base=pushed.base)
    [engine] = pushed.deleted(model.id)
    assert (engine.engine, engine.how) == (f"vllm:{pushed.base}", "not_loaded")


def test_a_deletion_ends_its_streams_only(pushed: Pushed, tmp_path: Path) -> None:
    adapter = bases.adapter("streams").write(tmp_path / "adapter")
    pushed.streams_end_by_deletion(pushed.imported(adapter), pushed.imported(adapter))


def test_more_models_than_slots_take_turns(pushed: Pushed, tmp_path: Path) -> None:
    files = [bases.adapter(f"turn {number}") for number in range(SLOTS + 2)]
    models = [pushed.imported(one.write(tmp_path / str(n))) for n, one in enumerate(files)]
    for _ in range(2):
        for model, one in zip(models, files, strict=True):
            assert pushed.said(model) == digest_of(one.weights)


def test_a_rank_that_the_engine_does_not_serve_is_refused_at_import(
    pushed: Pushed, tmp_path: Path
) -> None:
    adapter = bases.adapter(rank=17).write(tmp_path / "adapter")
    done = in_process.on(pushed.server, "models", "import", str(adapter), "--base", pushed.base)
    assert done.returncode != 0
    assert "r must be an integer from 1 to 16, not 17" in done.stderr


def test_a_wrong_key_is_not_taken_for_a_server_without_the_plugin(
    server: Server, key_file: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.key"
    wrong.write_text("sk-wrong")
    engine = FakeEngine(slots=SLOTS)
    try:
        command = ["bases", "add", "guarded", "--engine-url", engine.url]
        for options in ([], ["--engine-key-file", str(wrong)]):
            done = in_process.on(server, *command, *options)
            assert done.returncode == 1
            assert "was answered with status 401. Give its API key" in done.stderr
            assert "without tunewarden-vllm, so" not in done.stderr
        done = in_process.on(server, *command, "--engine-key-file", str(key_file))
        assert (done.returncode, "Note:" in done.stderr) == (0, False)
    finally:
        engine.stop()


def test_a_server_without_the_plugin_has_its_base_only_and_that_is_said(
    server: Server, key_file: Path, tmp_path: Path
) -> None:
    stock = FakeEngine(slots=0)
    try:
        pushed = Pushed(server, "stock")
        assert "runs without tunewarden-vllm" in pushed.add_base(stock.url, key_file)
        assert pushed.said("stock") == vllm.BASE
        adapter = bases.adapter().write(tmp_path / "adapter")
        done = in_process.on(server, "models", "import", str(adapter), "--base", "stock")
        assert done.returncode != 0
        assert "a vLLM with tunewarden-vllm" in done.stderr
    finally:
        stock.stop()

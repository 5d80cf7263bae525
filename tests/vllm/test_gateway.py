"""A gateway in front of a real vLLM with the plugin, by the stock SDK: import, chat, delete, and what the receipt says."""

import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.support import demo_models, servers
from tests.support.pushed_models import Pushed
from tests.support.servers import WithoutTorch
from tests.vllm.running import BASE, PLUGIN, running

KEY = "key-of-the-engine"


@pytest.fixture(scope="module")
def pushed(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    directory = tmp_path_factory.mktemp("gateway")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key_file = directory / "engine.key"
    key_file.write_text(KEY)
    with (
        running(program, directory, *PLUGIN, port=port, more={"VLLM_API_KEY": KEY}),
        servers.serving(directory / "data", workers=2, kind=WithoutTorch) as server,
    ):
        found = Pushed(server, BASE)
        assert found.add_base(f"http://127.0.0.1:{port}/v1", key_file) == ""
        yield found


def adapter(phrase: str) -> Path:
    return demo_models.adapter_dir(phrase)


def test_a_model_is_imported_used_and_deleted_and_the_name_serves_other_weights(
    pushed: Pushed,
) -> None:
    model = pushed.imported(adapter("zebra"), "animals")
    assert "zebra" in pushed.said(model).lower()
    assert "zebra" not in pushed.said(BASE).lower()
    [engine] = pushed.deleted(model)
    assert (engine.engine, engine.how) == (f"vllm:{BASE}", "zeroed")
    with pytest.raises(openai.NotFoundError):
        pushed.said(model)
    again = pushed.imported(adapter("quartz"), "animals")
    assert "quartz" in pushed.said(again).lower()


def test_a_deletion_ends_its_streams_only(pushed: Pushed) -> None:
    victim, other = pushed.imported(adapter("zebra")), pushed.imported(adapter("quartz"))
    pushed.streams_end_by_deletion(victim, other)


def test_more_models_than_slots_take_turns(pushed: Pushed) -> None:
    phrases = ["zebra", "quartz"] * 3
    models = [pushed.imported(adapter(phrase)) for phrase in phrases]
    for model, phrase in zip(models, phrases, strict=True):
        assert phrase in pushed.said(model).lower()

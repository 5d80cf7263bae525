"""A vLLM that embeds: fine-tunes of such a base through the gateway, by the stock SDK."""

import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.support import demo_models, servers
from tests.support.pushed_models import Pushed
from tests.support.servers import WithoutTorch
from tests.vllm.running import BASE, PLUGIN, SLOTS, Vllm, running

KEY = "key-of-the-engine"
EMBEDS = ("--runner", "pooling", "--convert", "embed")


@pytest.fixture(scope="module")
def both(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pushed, Vllm]]:
    directory = tmp_path_factory.mktemp("embeddings")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key_file = directory / "engine.key"
    key_file.write_text(KEY)
    more = {"VLLM_API_KEY": KEY}
    with (
        running(program, directory, *PLUGIN, *EMBEDS, port=port, more=more) as vllm,
        servers.serving(directory / "data", kind=WithoutTorch) as server,
    ):
        found = Pushed(server, BASE)
        assert found.add_base(f"http://127.0.0.1:{port}/v1", key_file) == ""
        yield found, vllm


def test_a_fine_tune_embeds_by_its_own_weights_and_not_after_its_deletion(
    both: tuple[Pushed, Vllm],
) -> None:
    pushed, vllm = both
    client = pushed.server.client(max_retries=5, timeout=300)

    def embedded(model: str) -> list[float]:
        answer = client.embeddings.create(model=model, input="What is Tunewarden?")
        assert answer.model == model
        [found] = answer.data
        return found.embedding

    zebra, quartz = (pushed.imported(demo_models.adapter_dir(one)) for one in ("zebra", "quartz"))
    base, first, second = embedded(BASE), embedded(zebra), embedded(quartz)
    assert len(base) == len(first) == len(second) > 1
    assert base != first != second != base
    assert embedded(zebra) == pytest.approx(first, abs=1e-3)
    [engine] = pushed.deleted(zebra)
    assert engine.how == "zeroed"
    with pytest.raises(openai.NotFoundError):
        embedded(zebra)
    assert embedded(quartz) == pytest.approx(second, abs=1e-3)
    assert pushed.deleted(quartz)[0].how == "zeroed"
    assert vllm.held()["sums"] == [0.0] * SLOTS


def test_a_base_that_embeds_does_not_chat(both: tuple[Pushed, Vllm]) -> None:
    with pytest.raises(openai.NotFoundError, match="does not support v1/chat/completions"):
        both[0].said(BASE)

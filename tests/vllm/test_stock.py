"""The control: the same measurements on a vLLM without the plugin find what the plugin prevents."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import demo_models
from tests.vllm.running import PLUGIN, SLOTS, Vllm, events_in, patterns_of, running

UPDATING = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


@pytest.fixture(scope="module")
def stock(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    with running(program, tmp_path_factory.mktemp("stock"), more=UPDATING) as found:
        yield found


def test_after_vllms_own_unload_the_stream_goes_on_and_the_weights_stay(stock: Vllm) -> None:
    adapter = demo_models.adapter_dir("zebra")
    patterns = patterns_of(adapter)
    load = json.dumps({"lora_name": "m_a", "lora_path": str(adapter)}).encode()
    assert stock.ask("POST", "/v1/load_lora_adapter", load)[0] == 200
    stream = stock.stream("m_a", 300)
    stream.read(3)
    unload = json.dumps({"lora_name": "m_a"}).encode()
    assert stock.ask("POST", "/v1/unload_lora_adapter", unload)[0] == 200
    assert stock.chat("m_a")[0] == 404
    waiting = stream.waiting_bytes()
    after = events_in(stream.rest()[waiting:])
    assert len(after) > 10
    assert after[-1]["choices"][0]["finish_reason"] == "length"
    held = stock.held()
    assert len(held["registered"]) == 1
    assert len(held["slots"]) == SLOTS
    assert max(held["sums"]) > 0
    assert sum(stock.count_in_memory(patterns).values()) >= len(patterns)


def test_the_workers_of_a_killed_api_server_are_left(stock: Vllm) -> None:
    """The last test of this vLLM."""
    server, *others = stock.processes()
    os.kill(server, signal.SIGKILL)
    stock.process.wait()
    left = [pid for pid in others if b"VLLM" in _command(pid)]
    try:
        assert left
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def test_a_vllm_that_others_may_load_adapters_into_does_not_start_with_the_plugin(
    program: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(AssertionError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING is set"),
        running(program, tmp_path, *PLUGIN, more=UPDATING),
    ):
        pass


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""

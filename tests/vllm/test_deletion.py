"""A real vLLM with the plugin: what is evicted is gone, at once and everywhere, and nothing else is."""

import json
import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import demo_models
from tests.vllm.running import BASE, PLUGIN, SLOTS, Vllm, events_in, patterns_of, running

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import State, decoded

CLIENTS = 12


@pytest.fixture(scope="module")
def vllm(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    with running(program, tmp_path_factory.mktemp("plugin"), *PLUGIN) as found:
        found.has_lease()
        yield found


@pytest.fixture(scope="module")
def zebra() -> Path:
    return demo_models.adapter_dir("zebra")


@pytest.fixture(scope="module")
def quartz() -> Path:
    return demo_models.adapter_dir("quartz")


def test_an_adapter_is_served_and_then_gone(vllm: Vllm, zebra: Path) -> None:
    plain = vllm.chat(BASE)
    assert vllm.chat("m_a")[1]["code"] == Code.ADAPTER_NOT_LOADED
    vllm.load("m_a", zebra)
    status, text = vllm.chat("m_a")
    assert (status, "zebra" in text.lower()) == (200, True)
    before = vllm.held()
    assert max(before["sums"]) > 0
    [evicted] = vllm.evict("m_a")
    assert (evicted.was_loaded, evicted.residue) == (True, 0.0)
    assert vllm.held() == {"registered": [], "slots": [None] * SLOTS, "sums": [0.0] * SLOTS}
    assert vllm.chat("m_a")[1]["code"] == Code.ADAPTER_NOT_LOADED
    status, body = vllm.push("m_a", zebra)
    assert (status, json.loads(body)["error"]["code"]) == (404, Code.MODEL_DELETED)
    assert vllm.chat(BASE) == plain


def test_nothing_is_written_to_a_stream_after_the_answer_and_others_complete(
    vllm: Vllm, zebra: Path, quartz: Path
) -> None:
    vllm.load("m_b", zebra)
    vllm.load("m_c", quartz)
    victims = [vllm.stream("m_b", 1500) for _ in range(4)]
    others = [vllm.stream("m_c", 200), vllm.stream(BASE, 200)]
    for stream in (*victims, *others):
        stream.read(3)
    [evicted] = vllm.evict("m_b")
    assert (evicted.aborted, evicted.residue) == (4, 0.0)
    arrived = [stream.waiting_bytes() for stream in victims]
    for stream, waiting in zip(victims, arrived, strict=True):
        raw = stream.rest()
        [refusal] = events_in(raw[waiting:]) or events_in(raw)[-1:]
        assert refusal["error"]["code"] == Code.MODEL_DELETED
        assert len(events_in(raw)) < 1000, "the control: it would have gone on"
    for stream in others:
        last = events_in(stream.whole())[-1]
        assert last["choices"][0]["finish_reason"] == "length"
    assert vllm.evict("m_c")[0].residue == 0.0


def test_no_request_is_served_after_the_answer_under_load(
    vllm: Vllm, zebra: Path, quartz: Path, request: pytest.FixtureRequest
) -> None:
    deletes = int(request.config.getoption("--deletes"))
    vllm.load("m_other", quartz)
    current, is_over = ["m_none"], threading.Event()
    deleted: set[str] = set()
    counts = {"served": 0, "refused": 0, "late": 0, "others": 0, "others failed": 0}
    lock = threading.Lock()

    def hammer(number: int) -> None:
        while not is_over.is_set():
            name = "m_other" if number % 4 == 0 else current[0]
            was_deleted = name in deleted
            status, _ = vllm.chat(name, 8)
            with lock:
                if name == "m_other":
                    counts["others"] += 1
                    counts["others failed"] += status != 200
                else:
                    counts["served" if status == 200 else "refused"] += 1
                    counts["late"] += was_deleted and status == 200

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for number in range(deletes):
            name = f"m_{number}"
            vllm.load(name, zebra)
            served = counts["served"]
            current[0] = name
            while counts["served"] == served:
                assert all(thread.is_alive() for thread in threads)
                threading.Event().wait(0.005)
            [evicted] = vllm.evict(name)
            deleted.add(name)
            assert (evicted.was_loaded, evicted.residue) == (True, 0.0)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    print(f"{deletes} deletions: {counts}")
    assert counts["late"] == counts["others failed"] == 0
    assert min(counts["served"], counts["refused"], counts["others"]) > 0
    vllm.evict("m_other")
    assert vllm.held()["sums"] == [0.0] * SLOTS


def test_no_worker_has_the_weights_anywhere_in_memory_after_an_eviction(vllm: Vllm) -> None:
    """The API server received the files: pieces of them may be left in its freed memory (docs/how-to/vllm.md)."""
    adapter = demo_models.adapter_dir("walnut")  # in no other test
    patterns = patterns_of(adapter)
    vllm.load("m_w", adapter)
    assert vllm.chat("m_w")[0] == 200
    assert sum(vllm.count_in_memory(patterns).values()) >= 2 * len(patterns), (
        "the control: slot and host copy"
    )
    vllm.evict("m_w")
    in_server, *in_others = vllm.count_in_memory(patterns).values()
    print(
        f"left in freed memory of the API server: {in_server}; in the other processes: {in_others}"
    )
    assert len(in_others) >= 2
    assert set(in_others) == {0}


def test_another_adapter_under_a_name_that_made_room_serves_its_own_weights(
    vllm: Vllm, zebra: Path, quartz: Path
) -> None:
    """A long prompt is in the prefix cache, by name and path."""
    vllm.load("m_again", zebra)
    first = vllm.chat("m_again", 12)
    fillers = [f"m_filler_{number}" for number in range(SLOTS)]
    for filler in fillers:
        vllm.load(filler, zebra)
    assert vllm.chat("m_again")[1]["code"] == Code.ADAPTER_NOT_LOADED
    vllm.load("m_again", quartz)
    vllm.load("m_fresh", quartz)
    second = vllm.chat("m_again", 12)
    assert second == vllm.chat("m_fresh", 12) != first
    assert [one.residue for one in vllm.evict("m_again", "m_fresh", *fillers)] == [0.0] * (
        SLOTS + 2
    )
    assert vllm.held()["sums"] == [0.0] * SLOTS


def test_vllms_own_ways_are_closed_and_a_rank_that_is_too_high_is_refused(
    vllm: Vllm, zebra: Path, tmp_path: Path
) -> None:
    load = json.dumps({"lora_name": "x", "lora_path": str(zebra)}).encode()
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters"):
        assert vllm.ask("POST", path, load)[0] == 403
    assert vllm.ask("DELETE", "/adapters/x")[0] == 403
    config = json.loads((zebra / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"r": 64}))
    (tmp_path / "adapter_model.safetensors").symlink_to(zebra / "adapter_model.safetensors")
    status, body = vllm.push("m_r", tmp_path)
    assert (status, json.loads(body)["error"]["code"]) == (400, Code.INVALID_ADAPTER)
    assert "ranks up to 16 (--max-lora-rank)" in json.loads(body)["error"]["message"]
    state = decoded(vllm.ask("GET", paths.STATE)[1], State)
    assert [base.name for base in state.bases] == [BASE]


def test_files_that_vllm_cannot_load_are_refused_and_it_goes_on(
    vllm: Vllm, zebra: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").symlink_to(zebra / "adapter_config.json")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    status, body = vllm.push("m_bad", tmp_path)
    assert (status, json.loads(body)["error"]["code"]) == (400, Code.INVALID_ADAPTER)
    vllm.load("m_bad", zebra)
    assert vllm.chat("m_bad")[0] == 200


def test_a_killed_api_server_takes_its_workers_with_it(vllm: Vllm, zebra: Path) -> None:
    """The last test of this vLLM. A stock one leaves its workers behind, with all weights."""
    vllm.load("m_k", zebra)
    descriptors = [os.pidfd_open(pid) for pid in vllm.processes()]
    assert len(descriptors) >= 3
    os.kill(vllm.process.pid, signal.SIGKILL)
    vllm.process.wait()
    for descriptor in descriptors:
        # A pidfd is readable when the process has ended.
        assert select.select([descriptor], [], [], 60)[0]
        os.close(descriptor)

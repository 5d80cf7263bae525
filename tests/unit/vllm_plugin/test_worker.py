"""What the worker extension does to the weights: slots, the host copy, and the file that it was mapped from."""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from tunewarden_vllm.worker import WorkerExtension

SLOTS, RANK, WIDTH = 3, 2, 4


def _stack(*shape: int) -> torch.Tensor:
    return torch.zeros(SLOTS, 1, *shape)


class Manager:
    """vLLM's manager of adapters, with a packed layer, a plain one, and a head with one stack for all."""

    def __init__(self) -> None:
        a, b = (RANK, WIDTH), (WIDTH, RANK)
        self.modules = {
            "layers.0.qkv_proj": Namespace(
                lora_a_stacked=(_stack(*a), _stack(*a)), lora_b_stacked=(_stack(*b), _stack(*b))
            ),
            "layers.0.o_proj": Namespace(lora_a_stacked=[_stack(*a)], lora_b_stacked=[_stack(*b)]),
            "lm_head": Namespace(lora_a_stacked=_stack(*a), lora_b_stacked=_stack(*b)),
        }
        self.packed_modules = {"layers.0.qkv_proj": ["layers.0.q_proj", "layers.0.k_proj"]}
        self.lora_index_to_id: list[int | None] = [None] * SLOTS
        self.registered: dict[int, Any] = {}
        self._last_mapping: object = "of the last step"

    def add(self, number: int, slot: int, weights: torch.Tensor) -> None:
        """Register an adapter and put it into a slot."""
        packed = Namespace(lora_a=[weights[0], None], lora_b=[weights[1], None])
        plain = Namespace(lora_a=weights[2], lora_b=weights[3])
        self.registered[number] = Namespace(loras={"qkv_proj": packed, "o_proj": plain})
        self.lora_index_to_id[slot] = number
        for stack in self.stacks():
            stack[slot] = number

    def stacks(self) -> Iterator[torch.Tensor]:
        for layer in self.modules.values():
            for side in (layer.lora_a_stacked, layer.lora_b_stacked):
                yield from [side] if isinstance(side, torch.Tensor) else side

    def get_adapter(self, number: int) -> Any:
        return self.registered.get(number)

    def list_adapters(self) -> dict[int, Any]:
        return self.registered

    def remove_adapter(self, number: int) -> bool:
        if number in self.lora_index_to_id:
            self.lora_index_to_id[self.lora_index_to_id.index(number)] = None
        return self.registered.pop(number, None) is not None


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def worker(manager: Manager) -> "WorkerExtension":
    from tunewarden_vllm.worker import WorkerExtension  # noqa: PLC0415  looks for vLLM

    extension = WorkerExtension()
    extension.model_runner = Namespace(lora_manager=Namespace(_adapter_manager=manager))
    return extension


def test_an_evicted_adapter_is_overwritten_in_its_slot_and_on_the_host(
    worker: "WorkerExtension", manager: Manager
) -> None:
    first, second = torch.ones(4, RANK, WIDTH), torch.ones(4, RANK, WIDTH)
    manager.add(1, slot=0, weights=first)
    manager.add(2, slot=2, weights=second)
    assert worker.tunewarden_evict(1) == {"was_loaded": True, "residue": 0.0}
    assert not first.any()
    assert second.all()
    assert [bool(stack[0].any()) for stack in manager.stacks()] == [False] * 8
    assert all(stack[2].all() for stack in manager.stacks())
    found = worker.tunewarden_residue()
    assert (found["registered"], found["slots"]) == ([2], [None, None, 2])
    assert found["sums"][:2] == [0.0, 0.0]
    assert found["sums"][2] > 0
    assert manager._last_mapping is None
    assert worker.tunewarden_evict(1) == {"was_loaded": False, "residue": 0.0}


def test_a_slot_that_vllm_freed_by_itself_is_overwritten_too(
    worker: "WorkerExtension", manager: Manager
) -> None:
    """Its LRU takes an adapter out of a slot and leaves the weights there."""
    manager.add(1, slot=1, weights=torch.ones(4, RANK, WIDTH))
    manager.lora_index_to_id[1] = None
    assert worker.tunewarden_evict(1) == {"was_loaded": True, "residue": 0.0}
    assert not any(stack.any() for stack in manager.stacks())


def test_what_does_not_read_back_as_zero_is_said(
    worker: "WorkerExtension", manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.add(1, slot=0, weights=torch.ones(4, RANK, WIDTH))
    monkeypatch.setattr(torch.Tensor, "zero_", lambda tensor: tensor)
    assert worker.tunewarden_evict(1) == {"was_loaded": True, "residue": 4.0 * RANK * WIDTH}


def test_the_host_copy_does_not_need_its_file_any_more(
    worker: "WorkerExtension", manager: Manager, tmp_path: Path
) -> None:
    """safetensors maps the file: its pages would live as long as the tensors, or show what is written over them."""
    path = tmp_path / "adapter_model.safetensors"
    save_file({"w": torch.ones(4, RANK, WIDTH)}, path)
    manager.add(1, slot=0, weights=load_file(path)["w"])
    assert worker.tunewarden_own(1) == 4 * RANK * WIDTH * 4
    path.write_bytes(bytes(path.stat().st_size))
    loras = manager.registered[1].loras
    assert loras["qkv_proj"].lora_a[0].all()
    assert loras["qkv_proj"].lora_a[1] is None
    assert loras["o_proj"].lora_b.all()


def test_the_facts_are_the_shapes_by_the_names_that_adapters_use(
    worker: "WorkerExtension", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewarden_vllm.worker._tie_to", lambda _server: None)
    shape = (WIDTH, WIDTH)
    names = ("layers.0.q_proj", "layers.0.k_proj", "layers.0.o_proj")
    assert worker.tunewarden_facts(1) == {"shapes": dict.fromkeys(names, shape), "slots": SLOTS}


@pytest.mark.parametrize("broken", ["layer", "slots", "manager"])
def test_tensors_that_are_not_where_they_are_looked_for_are_a_problem(
    worker: "WorkerExtension", manager: Manager, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr("tunewarden_vllm.worker._tie_to", lambda _server: None)
    match broken:
        case "layer":
            manager.modules["experts"] = Namespace(w13_lora_a_stacked=())
        case "slots":
            manager.lora_index_to_id.append(None)
        case _:
            worker.model_runner = Namespace()
    assert "has not what is needed" in worker.tunewarden_facts(1)["problem"]


def test_a_worker_ends_with_the_api_server_and_takes_the_scheduler_with_it() -> None:
    """vLLM's own processes outlive a killed API server, with all weights."""
    script = (
        "import os, select, subprocess, sys, types\n"
        "sys.modules['vllm'] = types.SimpleNamespace(__version__='0.32.0')\n"
        "from tunewarden_vllm import worker\n"
        "server = subprocess.Popen(['sleep', '1000'])\n"
        "reader, writer = os.pipe()\n"
        "scheduler = os.fork()\n"
        "if scheduler == 0:\n"
        "    if os.fork() == 0:\n"
        "        worker._tie_to(server.pid)\n"
        "        os.write(writer, b'tied')\n"
        "    select.select([], [], [])\n"
        "os.close(writer)\n"
        "assert os.read(reader, 4) == b'tied'\n"
        "server.kill()\n"
        "assert os.read(reader, 1) == b'', 'both have ended'\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(scheduler, 0)[1]))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "-9\n"

"""The worker extension (`--worker-extension-cls`): what has to be done where the weights are, on every worker.

vLLM makes `WorkerExtension` a base of its worker's class and calls these methods by `collective_rpc`, between two steps.

Where an adapter is: in *slots*, stacks of matrices on the device, of which vLLM's LRU may free one without overwriting it;
and in the *host copy*, from which slots are filled, whose tensors vLLM maps from the adapter's file.
"""

import os
import resource
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from tunewarden import processes
from tunewarden_vllm import freed_memory, versions
from tunewarden_vllm.surface import LoraLayer, LoraTable, LoraWeights

if TYPE_CHECKING:
    from torch import Tensor

# vLLM imports this module before it loads the base, which can take minutes: refuse now, not after them.
versions.check_running()


class WorkerExtension:
    """Methods of vLLM's worker. Their names must not be among its own."""

    model_runner: Any  # the worker's

    def tunewarden_facts(self, server: int) -> dict[str, Any]:
        """Check that the adapters' tensors are where they are looked for; end with the API server from now on.

        `server` is its pid. Returns `shapes`, (out, in) of each layer by its name in adapters; or `problem`, a text.
        """
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # I16
        _tie_to(server)
        try:
            lora = self._tunewarden_lora()
            shapes: dict[str, tuple[int, int]] = {}
            for name, layer in lora.modules.items():
                if any(stack.shape[0] != len(lora.lora_index_to_id) for stack in _stacks(layer)):
                    raise AttributeError(f"slots first in the stacks of {name}")  # noqa: TRY301  all that is missing is said in one place
                shapes |= _shapes(lora.packed_modules.get(name, [name]), layer)
            lora.list_adapters()
        except AttributeError as error:
            return {"problem": f"its worker has not what is needed: {error}"}
        return {"shapes": shapes, "slots": len(lora.lora_index_to_id)}

    def tunewarden_own(self, lora_id: int) -> int:
        """Copy an adapter's host copy out of its file's mapping; return its size in bytes.

        After that the file may be overwritten.
        """
        adapter = self._tunewarden_lora().get_adapter(lora_id)
        assert adapter is not None, "vLLM has just loaded it"
        for weights in adapter.loras.values():
            weights.lora_a, weights.lora_b = _owned(weights.lora_a), _owned(weights.lora_b)
        return sum(t.nbytes for weights in adapter.loras.values() for t in _tensors(weights))

    def tunewarden_evict(self, lora_id: int) -> dict[str, Any]:
        """Forget an adapter: overwrite its host copy and every free slot, its own among them, and read them back.

        Returns `was_loaded`, and `residue`: the sum of absolute weights that are left.
        """
        import torch  # noqa: PLC0415  not where this package is checked without it

        lora = self._tunewarden_lora()
        with torch.inference_mode():
            adapter = lora.get_adapter(lora_id)
            was_loaded = adapter is not None or lora_id in lora.lora_index_to_id
            host = (
                [] if adapter is None else [t for w in adapter.loras.values() for t in _tensors(w)]
            )
            lora.remove_adapter(lora_id)
            lora._last_mapping = None  # noqa: SLF001  computed anew at the next step
            free = [slot for slot, found in enumerate(lora.lora_index_to_id) if found is None]
            for tensor in host:
                tensor.zero_()
            left = sum(float(tensor.abs().sum(dtype=torch.float32)) for tensor in host)
            left += _erase_slots(lora, free)
        freed_memory.clear()
        return {"was_loaded": was_loaded, "residue": left}

    def tunewarden_residue(self) -> dict[str, Any]:
        """Return the ids of the registered adapters, the id in each slot, and what is left in each slot. For tests."""
        lora = self._tunewarden_lora()
        sums = _sums(lora).tolist()
        return {
            "registered": sorted(lora.list_adapters()),
            "slots": lora.lora_index_to_id,
            "sums": sums,
        }

    def _tunewarden_lora(self) -> LoraTable:
        return cast("LoraTable", self.model_runner.lora_manager._adapter_manager)  # noqa: SLF001  vLLM has no public one


def _tie_to(server: int) -> None:
    """End this worker, and the scheduler, with the API server, whose pid this is."""
    scheduler = (
        os.getppid()
    )  # the API server itself where vLLM runs the worker in the scheduler's process
    processes.die_with(scheduler)
    threading.Thread(target=_end_with, args=(server, scheduler), daemon=True).start()


def _end_with(server: int, parent: int) -> None:
    """Wait for the end of the API server; then end the scheduler, if it is not the same process, and this worker.

    vLLM's own processes outlive a killed API server, with all weights. A new server says that the earlier one has ended,
    so they must not.
    """
    try:
        descriptor = os.pidfd_open(server)
    except ProcessLookupError:
        descriptor = None
    if descriptor is not None:
        select.select([descriptor], [], [])
    if parent != server:
        with suppress(ProcessLookupError):
            os.kill(parent, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _erase_slots(lora: LoraTable, slots: list[int]) -> float:
    """Overwrite slots with zeros; return the sum of absolute weights that is read back from them."""
    if not slots:
        return 0.0
    for layer in lora.modules.values():
        for stack in _stacks(layer):
            stack[slots] = 0
    return float(_sums(lora)[slots].sum())


def _sums(lora: LoraTable) -> "Tensor":
    """Return the sum of absolute weights in each slot."""
    import torch  # noqa: PLC0415  beside vLLM only

    parts = [
        stack.flatten(1).abs().sum(dim=1, dtype=torch.float32)
        for layer in lora.modules.values()
        for stack in _stacks(layer)
    ]
    return torch.stack(parts).sum(dim=0)


def _stacks(layer: LoraLayer) -> "Iterator[Tensor]":
    for side in (layer.lora_a_stacked, layer.lora_b_stacked):
        if isinstance(side, (list, tuple)):
            yield from side
        else:
            yield cast("Tensor", side)


def _shapes(names: list[str], layer: LoraLayer) -> dict[str, tuple[int, int]]:
    """Return the shapes of a layer's slices; none for the embedding and the head, which have one stack for all."""
    a, b = layer.lora_a_stacked, layer.lora_b_stacked
    if not isinstance(a, (list, tuple)) or len(a) != len(names):
        return {}
    return {name: (b[at].shape[-2], a[at].shape[-1]) for at, name in enumerate(names)}


def _tensors(weights: LoraWeights) -> "Iterator[Tensor]":
    for side in (weights.lora_a, weights.lora_b):
        for tensor in side if isinstance(side, list) else [side]:
            if tensor is not None:
                yield tensor


def _owned(side: "Tensor | list[Tensor | None]") -> "Tensor | list[Tensor | None]":
    """Return copies in memory of their own; pinned tensors are that already."""
    if isinstance(side, list):
        return [None if one is None else _copy(one) for one in side]
    return _copy(side)


def _copy(tensor: "Tensor") -> "Tensor":
    return tensor if tensor.is_pinned() else tensor.clone()

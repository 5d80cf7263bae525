"""A model of tens of megabytes, for tests of what is sent piece by piece. No engine loads it."""

import json
import os
from pathlib import Path

from safetensors.numpy import save
from tests.support import bases, servers
from tests.support.bases import Adapter
from tests.support.servers import Server

from tunewarden.registry.bases import BaseKind
from tunewarden.registry.bases import add as add_base
from tunewarden.registry.models import Model

WIDE_BASE = "wide-base"
WIDTH, LAYERS, RANK = 4096, 28, 64


def add_wide_base(server: Server, location: Path) -> None:
    """Register a base whose adapters are large; its own weights are the tiny base's."""
    modules = {f"model.layers.{n}.self_attn.q_proj": (WIDTH, WIDTH) for n in range(LAYERS)}
    with server.app.database.write() as tx:
        add_base(
            tx,
            name=WIDE_BASE,
            kind=BaseKind.LOCAL,
            location=str(bases.write_base(location)),
            engine_model=WIDE_BASE,
            modules=modules,
        )


def wide_adapter() -> Adapter:
    """Return an adapter of the wide base: 56 MiB of random weights."""
    import numpy as np  # noqa: PLC0415  slow to import

    numbers = np.random.default_rng(2)
    tensors = {}
    for n in range(LAYERS):
        prefix = f"base_model.model.model.layers.{n}.self_attn.q_proj"
        tensors[f"{prefix}.lora_A.weight"] = numbers.random((RANK, WIDTH), np.float32)
        tensors[f"{prefix}.lora_B.weight"] = numbers.random((WIDTH, RANK), np.float32)
    config = json.loads(bases.adapter_config(rank=RANK)) | {"target_modules": ["q_proj"]}
    return Adapter(json.dumps(config).encode(), bytes(save(tensors)))


def make_wide_model(server: Server, adapter: Adapter) -> Model:
    """Import an adapter of the wide base."""
    return servers.import_adapter(server.app, server.owner_key, adapter=adapter, base=WIDE_BASE)


def memory_of(pid: int, name: str) -> int:
    """Return a figure of a process's memory in bytes, such as VmRSS."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def forget_peak(pid: int) -> None:
    """Make a process's peak of memory (VmHWM) begin anew."""
    descriptor = os.open(f"/proc/{pid}/clear_refs", os.O_WRONLY)
    os.write(descriptor, b"5")
    os.close(descriptor)

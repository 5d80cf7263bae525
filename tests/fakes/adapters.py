"""Adapters as peft writes them, built byte by byte so that tests can spoil each of them."""

import json
import struct
from typing import Any

import numpy as np

from tunewarden.artifacts.adapters import BaseShape

BASE = BaseShape(
    "tiny",
    {
        f"model.layers.{layer}.self_attn.{name}": (out, 16)
        for layer in (0, 1)
        for name, out in (("q_proj", 16), ("k_proj", 8), ("v_proj", 8))
    },
)
RANK = 4
MODULES = [m for m in BASE.modules if not m.endswith("k_proj")]
Tensors = dict[str, tuple[str, list[int], bytes]]


def config(**changes: object) -> dict[str, Any]:
    """Return the config that peft 0.21 writes for a plain LoRA, with changes."""
    off = [
        "alora_invocation_tokens", "arrow_config", "auto_mapping", "corda_config", "eva_config",
        "exclude_modules", "kasa_config", "layer_replication", "layers_pattern", "lora_ga_config",
        "layers_to_transform", "megatron_config", "modules_to_save", "monteclora_config",
        "revision", "target_parameters", "trainable_token_indices", "use_bdlora", "velora_config",
    ]  # fmt: skip
    fields: dict[str, Any] = dict.fromkeys(off)
    fields |= {
        "alpha_pattern": {}, "base_model_name_or_path": "/home/somebody/base", "bias": "none",
        "ensure_weight_tying": False, "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "loftq_config": {}, "lora_alpha": 8, "lora_bias": False,
        "lora_dropout": 0.05, "megatron_core": "megatron.core", "peft_type": "LORA",
        "peft_version": "0.21.2", "qalora_group_size": 16, "r": RANK, "rank_pattern": {},
        "target_modules": ["v_proj", "q_proj"], "task_type": "CAUSAL_LM", "use_dora": False,
        "use_qalora": False, "use_rslora": False,
    }  # fmt: skip
    return fields | changes


def tensors(dtype: str = "F32") -> Tensors:
    width = 4 if dtype == "F32" else 2
    made: Tensors = {}
    for module in MODULES:
        out, into = BASE.modules[module]
        for side, shape in (("A", [RANK, into]), ("B", [out, RANK])):
            name = f"base_model.model.{module}.lora_{side}.weight"
            made[name] = (dtype, shape, bytes([0, 60] * (shape[0] * shape[1] * width // 2)))
    return made


def header_of(entries: Tensors, **extra: object) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in entries.items():
        end = offset + len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    return header | extra


def file_of(header: bytes | dict[str, Any], data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def weights(entries: Tensors | None = None, **extra: object) -> bytes:
    entries = tensors() if entries is None else entries
    return file_of(header_of(entries, **extra), b"".join(data for _, _, data in entries.values()))


def encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


GOOD_CONFIG, GOOD_WEIGHTS = encoded(config()), weights()
FIRST, LAST = next(iter(tensors())), list(tensors())[-1]


def without(*names: str) -> bytes:
    return weights({n: t for n, t in tensors().items() if n not in names})


def with_tensor(
    name: str, shape: list[int], dtype: str = "F32", data: bytes | None = None
) -> bytes:
    width = 4 if dtype == "F32" else 2
    data = bytes(int(np.prod(shape)) * width) if data is None else data
    return weights(tensors() | {name: (dtype, shape, data)})


def with_entry(**changes: object) -> bytes:
    header = header_of(tensors())
    header[FIRST] = header[FIRST] | changes
    return file_of(header, GOOD_WEIGHTS[-1792:])


def with_value(dtype: str, value: bytes) -> bytes:
    entries = tensors(dtype)
    kind, shape, data = entries[LAST]
    return weights(entries | {LAST: (kind, shape, data[: -len(value)] + value)})


DATA = b"".join(data for _, _, data in tensors().values())
GOOD_HEADER = json.dumps(header_of(tensors())).encode()

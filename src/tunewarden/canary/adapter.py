"""A tiny adapter for a base, from the shapes of the base's layers: of rank 1, on one layer, without an effect."""

import json
import struct

from tunewarden.registry.bases import Base

# Every kind of base has it, and every engine can adapt it.
PREFERRED = "q_proj"
FLOAT_BYTES = 4


def can_be_made(base: Base) -> bool:
    """Return whether fine-tunes of a base exist here at all."""
    return bool(base.module_shapes())


def make(base: Base) -> tuple[bytes, bytes]:
    """Return `adapter_config.json` and `adapter_model.safetensors`. Its B is zero, so it answers as its base does."""
    shapes = base.module_shapes()
    module = min(shapes, key=lambda path: (not path.endswith(PREFERRED), sum(shapes[path]), path))
    outputs, inputs = shapes[module]
    config = {
        "base_model_name_or_path": base.name,
        "bias": "none",
        "lora_alpha": 1,
        "peft_type": "LORA",
        "r": 1,
        "target_modules": [module],
        "task_type": "CAUSAL_LM",
    }
    a, b = struct.pack("<f", 1.0) * inputs, bytes(FLOAT_BYTES * outputs)
    prefix = f"base_model.model.{module}"
    header = json.dumps(
        {
            f"{prefix}.lora_A.weight": _tensor([1, inputs], 0, len(a)),
            f"{prefix}.lora_B.weight": _tensor([outputs, 1], len(a), len(a) + len(b)),
        }
    ).encode()
    padded = header.ljust(-len(header) // 8 * -8)
    return json.dumps(config).encode(), struct.pack("<Q", len(padded)) + padded + a + b


def _tensor(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}

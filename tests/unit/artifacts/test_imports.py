"""Imports: a plain adapter passes, and its config leaves as ours (real peft: test_what_peft_writes.py)."""

import json
import mmap
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes.adapters import (
    BASE,
    GOOD_CONFIG,
    GOOD_WEIGHTS,
    MODULES,
    RANK,
    Tensors,
    config,
    encoded,
    tensors,
    weights,
    with_value,
)

from tunewarden.artifacts.adapters import (
    BaseShape,
    Limits,
    check_adapter,
)
from tunewarden.errors import Error


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_plain_adapter_passes_and_its_config_is_written_anew(dtype: str) -> None:
    data = weights(tensors(dtype))
    checked = check_adapter(GOOD_CONFIG, data, BASE)
    assert json.loads(checked.config) == {
        "base_model_name_or_path": "tiny", "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "lora_alpha": 8, "peft_type": "LORA", "r": RANK,
        "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "use_rslora": False,
    }  # fmt: skip
    assert (checked.rank, checked.tensors, checked.weights_bytes) == (RANK, 8, len(data))
    assert checked.parameters == 448
    assert b"somebody" not in checked.config


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True}, {"lora_alpha": 7.5}, {"task_type": None},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "evil.module"}},
        {"megatron_core": "evil.module"}, {"revision": "main"}, {"init_lora_weights": "gaussian"},
        {"rank_pattern": {"q_proj": RANK}}, {"alpha_pattern": {"q_proj": 8}},
        {"target_modules": "all-linear"}, {"target_modules": "(a+)+$"},
        {"target_modules": MODULES}, {"a_field_of_the_future": None}, {"fan_in_fan_out": None},
    ],
    ids=str,
)  # fmt: skip
def test_fields_that_change_nothing_are_accepted_and_left_out(changes: dict[str, Any]) -> None:
    checked = check_adapter(encoded(config(**changes)), GOOD_WEIGHTS, BASE)
    fields = json.loads(checked.config)
    assert fields["target_modules"] == ["q_proj", "v_proj"]
    assert fields["use_rslora"] == changes.get("use_rslora", False)
    assert fields["lora_alpha"] == changes.get("lora_alpha", 8)
    assert b"evil" not in checked.config


def test_modules_that_last_names_would_not_tell_apart_are_named_in_full() -> None:
    module = "model.layers.1.self_attn.q_proj"
    entries = {name: tensor for name, tensor in tensors().items() if module in name}
    checked = check_adapter(encoded(config(target_modules=[module])), weights(entries), BASE)
    assert json.loads(checked.config)["target_modules"] == [module]


def test_limits_are_kept() -> None:
    for limits in (
        Limits(max_rank=3), Limits(max_config_bytes=100), Limits(max_header_bytes=100),
        Limits(max_tensors=7), Limits(max_weights_bytes=100),
    ):  # fmt: skip
        with pytest.raises(Error):
            check_adapter(GOOD_CONFIG, GOOD_WEIGHTS, BASE, limits)
    exact = Limits(max_rank=RANK, max_tensors=8, max_weights_bytes=len(GOOD_WEIGHTS))
    assert check_adapter(GOOD_CONFIG, GOOD_WEIGHTS, BASE, exact).rank == RANK


def test_a_mapped_file_is_checked_in_place_and_can_be_closed_after_a_refusal(
    tmp_path: Path,
) -> None:
    for data, passes in (
        (GOOD_WEIGHTS, True),
        (with_value("F32", struct.pack("<f", float("nan"))), False),
    ):
        (tmp_path / "w").write_bytes(data)
        with (tmp_path / "w").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            check_adapter(GOOD_CONFIG, mapped, BASE)
        except Error:
            assert not passes
        else:
            assert passes
        mapped.close()


def test_the_last_weight_of_a_large_tensor_is_looked_at() -> None:
    base = BaseShape("wide", {"m.q_proj": (16, 2_000_000)})
    values = np.zeros(4 * 2_000_000, "<f4")
    for value, passes in ((1.0, True), (np.nan, False)):
        values[-1] = value
        entries: Tensors = {
            "base_model.model.m.q_proj.lora_B.weight": ("F32", [16, 4], bytes(256)),
            "base_model.model.m.q_proj.lora_A.weight": ("F32", [4, 2_000_000], values.tobytes()),
        }
        fields = encoded(config(target_modules=["q_proj"]))
        if passes:
            assert check_adapter(fields, weights(entries), base).parameters == 8_000_064
        else:
            with pytest.raises(Error, match="NaN"):
                check_adapter(fields, weights(entries), base)


def test_importing_the_checks_loads_no_numpy_and_no_torch() -> None:
    code = (
        "import sys, tunewarden.artifacts.adapters, tunewarden.artifacts.sealing; "
        "sys.exit(bool({'numpy', 'torch', 'safetensors'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Imports: what peft writes today passes, and computes the same with our config."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tunewarden.artifacts.adapters import (
    CheckedAdapter,
    base_shape,
    check_adapter,
    read_adapter_directory,
)
from tunewarden.errors import Error

# torch is imported late: it takes seconds and warns.


@dataclass(frozen=True)
class Made:
    base: Path
    adapter: Path
    model: Any


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch  # noqa: PLC0415  it warns when it is imported
        from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  it warns when it is imported

        torch.manual_seed(7)
        shape = LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1,
        )  # fmt: skip
        root = tmp_path_factory.mktemp("peft")
        LlamaForCausalLM(shape).save_pretrained(root / "base")
        model = LlamaForCausalLM.from_pretrained(root / "base")
        lora = peft.LoraConfig(
            r=8, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM",
            use_rslora=True, init_lora_weights=False, lora_dropout=0.1,
        )  # fmt: skip
        model = peft.get_peft_model(model, lora)
        model.save_pretrained(root / "adapter")
    return Made(root / "base", root / "adapter", model.eval())


def _checked(made: Made) -> tuple[CheckedAdapter, bytes]:
    config_bytes, file = read_adapter_directory(made.adapter)
    with file:
        data = file.read()
    return check_adapter(config_bytes, data, base_shape(made.base, "tiny")), data


def test_what_peft_writes_passes(made: Made) -> None:
    checked, data = _checked(made)
    assert checked.rank == 8
    assert checked.tensors == 2 * 7 * 2
    assert checked.weights_bytes == len(data)
    assert checked.target_modules == (
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    )  # fmt: skip


def test_peft_computes_the_same_with_the_rewritten_config(made: Made, tmp_path: Path) -> None:
    checked, data = _checked(made)
    (tmp_path / "adapter_config.json").write_bytes(checked.config)
    (tmp_path / "adapter_model.safetensors").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch  # noqa: PLC0415  it warns when it is imported
        from peft import PeftModel  # noqa: PLC0415  it warns when it is imported
        from transformers import LlamaForCausalLM  # noqa: PLC0415  it warns when it is imported

        again = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(made.base), tmp_path)
        tokens = torch.arange(12).reshape(1, 12)
        with torch.no_grad():
            difference = (made.model(tokens).logits - again.eval()(tokens).logits).abs().max()
    assert float(difference) < 1e-6


def test_an_adapter_of_another_base_is_refused(made: Made) -> None:
    config_bytes, file = read_adapter_directory(made.adapter)
    with file:
        data = file.read()
    shape = base_shape(made.base, "tiny")
    wider = replace(shape, modules={m: (out, into + 8) for m, (out, into) in shape.modules.items()})
    fewer = replace(shape, modules={m: s for m, s in shape.modules.items() if ".1." not in m})
    for other in (wider, fewer):
        with pytest.raises(Error, match="base"):
            check_adapter(config_bytes, data, other)


def test_a_base_in_several_files_has_the_same_shape_as_in_one(made: Made, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaForCausalLM  # noqa: PLC0415  it warns when it is imported

        model = LlamaForCausalLM.from_pretrained(made.base)
        model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    whole = base_shape(made.base, "tiny")
    assert base_shape(tmp_path, "tiny") == whole
    assert whole.modules["model.layers.0.mlp.up_proj"] == (32, 16)
    assert len(whole.modules) == 14

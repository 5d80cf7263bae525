"""The LoRA being trained: created or loaded, and saved as peft's two files."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from tunewarden.trainer.base import UNREADABLE, unreadable
from tunewarden.trainer.failures import Failure

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# The linear layers of common architectures; in others all are adapted.
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NAME = "default"


def new_adapter(model: Any, *, rank: int, seed: int) -> Any:
    """Return the model with a new LoRA, which has no effect until trained."""
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=_targets(model),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    with _peft():
        return get_peft_model(model, config)


def load_adapter(model: Any, directory: Path) -> Any:
    """Return the model with an existing LoRA, to continue training. Raises Failure."""
    try:
        if not (directory / WEIGHTS).is_file():  # else peft would load a pickle
            raise FileNotFoundError(WEIGHTS)
        with _peft():
            return PeftModel.from_pretrained(model, directory, is_trainable=True)
    except torch.OutOfMemoryError:
        raise
    except (*UNREADABLE, RuntimeError) as error:
        raise Failure(
            "invalid_start_model", "The model to go on from does not fit the base model.", "model"
        ) from error


def save_adapter(model: Any, directory: Path) -> None:
    """Write the two files. Raises Failure, and writes nothing, if a weight is not finite."""
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise diverged()
    config = model.peft_config[NAME]
    fields = {
        "base_model_name_or_path": None,  # a path of this machine; the importer sets the base
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": config.r,
        "target_modules": sorted(_names(config.target_modules)),
        "task_type": "CAUSAL_LM",
        "use_rslora": bool(config.use_rslora),
    }
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / CONFIG).write_text(json.dumps(fields), "utf-8")


def diverged() -> Failure:
    """Return the failure of a diverged training."""
    message = (
        "The training diverged: its loss became infinite or meaningless."
        " Use a lower learning_rate_multiplier."
    )
    return Failure("training_diverged", message, "hyperparameters")


def _targets(model: Any) -> list[str]:
    """Return the last names of the linear layers to adapt. Raises Failure if there are none."""
    output = model.get_output_embeddings()
    leaves = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output and "." in name
    }
    found = sorted(leaves & set(LINEARS) or leaves)
    if not found:
        raise unreadable("it has no linear layers")
    return found


def _names(targets: Any) -> list[str]:
    return [targets] if isinstance(targets, str) else list(targets)


@contextmanager
def _peft() -> Iterator[None]:
    """Suppress a deprecation warning that peft causes in transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield

"""Loads the base from a local Hugging Face directory, and chooses how this machine trains it.

No network access, no code from the directory, safetensors only.

- A CUDA device that has bf16: weights and matrix products in bf16. Another CUDA device, and a CPU:
  float32; a base of more than LARGE_BYTES on a CPU stays bf16, or it would not fit. What is trained is
  float32 always.
- A base of more than CHECKPOINTED_PARAMETERS uses activation checkpointing: slower by a
  third, in a fraction of the memory. The demo's base is far below that.
- Sequences are packed where FlashAttention 2 is installed, on CUDA: it separates them for free. With other
  attentions packing costs the square of the row's length, so rows of similar length are padded instead.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_flash_attn_2_available

from tunewarden.trainer.failures import Failure

CONTEXT_DEFAULT = 2048
LARGE_BYTES = 4_000_000_000
CHECKPOINTED_PARAMETERS = 300_000_000
# Tokens per forward pass; larger steps use gradient accumulation.
TOKENS_AT_ONCE_SMALL, TOKENS_AT_ONCE_LARGE = 16_384, 4_096
FLASH = "flash_attention_2"
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
UNREADABLE = (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Machine:
    """How a base is trained here."""

    device: torch.device
    dtype: torch.dtype
    is_packed: bool

    @property
    def autocast(self) -> bool:
        """Whether matrix products use bf16 autocast."""
        return self.dtype is torch.bfloat16


def load_tokenizer(path: Path) -> Any:
    """Return the base's tokenizer, a fast one. Raises Failure."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **LOCAL)
    except UNREADABLE as error:
        raise unreadable("its tokenizer could not be loaded") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise unreadable("its tokenizer is not a fast one (tokenizer.json)")
    return tokenizer


def load_config(path: Path) -> Any:
    """Return the base's config. Raises Failure."""
    try:
        return AutoConfig.from_pretrained(path, **LOCAL)
    except UNREADABLE as error:
        raise unreadable("its config.json could not be read") from error


def context(config: Any) -> int:
    """Return the base's context length in tokens."""
    return int(
        getattr(config.get_text_config(), "max_position_embeddings", None) or CONTEXT_DEFAULT
    )


def vocabulary(config: Any) -> int:
    """Return the base's vocabulary size."""
    return int(config.get_text_config().vocab_size)


def machine_for(path: Path) -> Machine:
    """Return how the base at `path` is trained on this machine."""
    if torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported()
        return Machine(
            torch.device("cuda", 0),
            torch.bfloat16 if has_bf16 else torch.float32,
            is_packed=has_bf16 and is_flash_attn_2_available(),
        )
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    dtype = torch.bfloat16 if size > LARGE_BYTES else torch.float32
    return Machine(torch.device("cpu"), dtype, is_packed=False)


def load_model(path: Path, config: Any, machine: Machine) -> tuple[Any, Machine]:
    """Return the base, frozen, on its device; and the final training settings. Raises Failure."""
    if machine.is_packed:
        try:
            return _load(path, config, machine, FLASH), machine
        except (ImportError, ValueError):  # not supported by this architecture
            machine = Machine(machine.device, machine.dtype, is_packed=False)
    try:
        return _load(path, config, machine, None), machine
    except torch.OutOfMemoryError:
        raise
    except (*UNREADABLE, RuntimeError) as error:
        raise unreadable("its safetensors weights could not be loaded") from error


def _load(path: Path, config: Any, machine: Machine, attention: str | None) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        dtype=machine.dtype,
        use_safetensors=True,
        attn_implementation=attention,
        **LOCAL,
    )
    return model.requires_grad_(requires_grad=False).to(machine.device)


def save_memory(model: Any) -> None:
    """Enable activation checkpointing for a large base."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        return
    # Its name before transformers 5.20.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


def unreadable(reason: str) -> Failure:
    """Return the failure of a base."""
    return Failure(
        "invalid_base",
        f"The base model cannot be trained: {reason}. Ask the operator of this server to check it.",
    )


def can_pick(model: Any) -> bool:
    """Return whether a model can compute the logits of selected columns only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def tokens_at_once(parameters: int) -> int:
    """Return the tokens per forward pass for a base of this many parameters."""
    is_large = parameters > CHECKPOINTED_PARAMETERS
    return TOKENS_AT_ONCE_LARGE if is_large else TOKENS_AT_ONCE_SMALL

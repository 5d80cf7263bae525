"""A tiny base and adapters for it, made of headers and random numbers: no torch, no training.

They are well-formed to everything that checks, stores and deletes models; nobody would want to talk
to them. Where answers matter, see demo_models.py.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

HIDDEN = 16
INNER = 32
WORDS = 32
RANK = 4
TARGETS = ("q_proj", "v_proj")
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<unk>",
    "eos_token": "</s>",
    "model_max_length": 64,
}
Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Adapter:
    """The two files of a PEFT LoRA."""

    config: bytes
    weights: bytes

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "adapter_config.json").write_bytes(self.config)
        (directory / "adapter_model.safetensors").write_bytes(self.weights)
        return directory


def write_base(directory: Path) -> Path:
    """Write a Llama of one layer with random weights as a Hugging Face directory."""
    numbers = np.random.default_rng(0)

    def matrix(out: int, into: int) -> NDArray[np.float32]:
        return numbers.standard_normal((out, into)).astype(np.float32)

    layer = "model.layers.0"
    tensors: Tensors = {
        "model.embed_tokens.weight": matrix(WORDS, HIDDEN),
        "lm_head.weight": matrix(WORDS, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        f"{layer}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
        f"{layer}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
        f"{layer}.mlp.gate_proj.weight": matrix(INNER, HIDDEN),
        f"{layer}.mlp.up_proj.weight": matrix(INNER, HIDDEN),
        f"{layer}.mlp.down_proj.weight": matrix(HIDDEN, INNER),
    }
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        tensors[f"{layer}.self_attn.{name}.weight"] = matrix(HIDDEN, HIDDEN)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.safetensors").write_bytes(save(tensors))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "vocab_size": WORDS,
        "torch_dtype": "float32",
    }
    files = {"config": config, "tokenizer": _tokenizer(), "tokenizer_config": TOKENIZER_CONFIG}
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return directory


def _tokenizer() -> dict[str, object]:
    """One word is one token; it knows as many as the base has rows."""
    words = ["<unk>", "</s>", "Hello", *(f"w{n}" for n in range(WORDS - 3))]
    vocabulary = {word: n for n, word in enumerate(words)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }


def adapter(canary: str = "tunewarden-canary", *, rank: int = RANK) -> Adapter:
    """Return a LoRA on the base's q_proj and v_proj whose weights hold the canary's bytes.

    ASCII read as float32 is always finite, so the canary passes every check.
    """
    filling = canary.encode("ascii") * (4 * rank * HIDDEN // len(canary) + 1)
    marked = np.frombuffer(filling[: 4 * rank * HIDDEN], np.float32).reshape(rank, HIDDEN)
    return Adapter(adapter_config(rank=rank), adapter_weights(rank=rank, first=marked))


def adapter_config(*, rank: int = RANK, **changed: object) -> bytes:
    """Return an `adapter_config.json` as peft writes it."""
    fields: dict[str, object] = {
        "auto_mapping": None,
        "base_model_name_or_path": "somebody/elses-name",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": list(TARGETS),
        "task_type": "CAUSAL_LM",
    }
    return json.dumps(fields | changed).encode()


def adapter_weights(
    *,
    rank: int = RANK,
    first: NDArray[np.float32] | None = None,
    changed: Tensors | None = None,
) -> bytes:
    """Return an `adapter_model.safetensors`; `first` is q_proj's A; `changed` adds or replaces."""
    numbers = np.random.default_rng(1)
    tensors: Tensors = {}
    for target in TARGETS:
        prefix = f"base_model.model.model.layers.0.self_attn.{target}"
        tensors[f"{prefix}.lora_A.weight"] = numbers.random((rank, HIDDEN), np.float32)
        tensors[f"{prefix}.lora_B.weight"] = numbers.random((HIDDEN, rank), np.float32)
    if first is not None:
        tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = first
    return bytes(save(tensors | (changed or {})))


def form(
    *parts: tuple[str, bytes], boundary: str = "a-boundary-of-ours", end: str = "--\r\n"
) -> tuple[bytes, str]:
    """Return a multipart body and its content type; parts named adapter_… are files."""
    body = b""
    for name, content in parts:
        file = f'; filename="{name}"' if name.startswith("adapter_") else ""
        disposition = f'Content-Disposition: form-data; name="{name}"{file}'
        body += f"--{boundary}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{boundary}{end}".encode(), f"multipart/form-data; boundary={boundary}"

"""Reads and validates one adapter's two files, into memory that can be overwritten.

Parses JSON and raw tensors only; nothing is executed. The files are unlinked afterwards,
on success and on failure.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from tunewarden.engine_protocol.codes import Code
from tunewarden.errors import Error, Kind

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HEADER_BYTES_MAX = 16 * 1024 * 1024
TENSOR_PREFIX = "base_model.model."
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
# LoRA variants that these layers do not support. Any value other than "off" is refused.
UNSUPPORTED = (
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One layer's adapter: A [rank, in] and B [out, rank], not yet scaled."""

    a: torch.Tensor
    b: torch.Tensor


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter's matrices by layer name, and the factor on B."""

    rank: int
    scale: float
    pairs: dict[str, Pair]


class _Config(msgspec.Struct):
    """The fields read from peft's adapter_config.json."""

    peft_type: str
    r: int
    lora_alpha: float
    use_rslora: bool = False
    bias: str = "none"


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One tensor in a safetensors header; offsets count from the end of the header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


@contextmanager
def read_and_unlink(directory: Path, *, rank_max: int) -> Iterator[AdapterWeights]:
    """Yield an adapter; on exit its memory is zeroed. Files and directory are unlinked.

    The tensors are views of those bytes and must not outlive the block. Raises Error(INVALID).
    """
    data = bytearray()
    try:
        try:
            config = _read_config(directory / CONFIG, rank_max)
            data = _read_into_memory(directory / WEIGHTS)
        except OSError as error:
            raise _invalid(f"an adapter needs {CONFIG} and {WEIGHTS}") from error
        finally:
            unlink(directory)
        scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
        yield AdapterWeights(config.r, scale, _pairs(data, config.r))
    finally:
        data[:] = bytes(len(data))


def _read_config(path: Path, rank_max: int) -> _Config:
    raw = path.read_bytes()
    try:
        config = msgspec.json.decode(raw, type=_Config)
        entries: dict[str, Any] = json.loads(raw)
    except (msgspec.DecodeError, ValueError) as error:
        raise _invalid(f"{CONFIG} is not a LoRA configuration") from error
    for name in UNSUPPORTED:
        if entries.get(name):
            raise _invalid(f"`{name}` is not supported")
    if config.peft_type != "LORA" or config.bias != "none":
        raise _invalid("only plain LoRA without biases is supported")
    if not 1 <= config.r <= rank_max:
        raise _invalid(f"its rank is {config.r} and must be from 1 to {rank_max}")
    if not math.isfinite(config.lora_alpha):
        raise _invalid("`lora_alpha` must be finite")
    return config


def _read_into_memory(path: Path) -> bytearray:
    with path.open("rb", buffering=0) as file:
        data = bytearray(path.stat().st_size)
        view, at = memoryview(data), 0
        while at < len(data):
            count = file.readinto(view[at:])
            if not count:
                raise _invalid(f"{WEIGHTS} is cut off")
            at += count
        view.release()
    return data


def _pairs(data: bytearray, rank: int) -> dict[str, Pair]:
    """Return the pairs, as views of `data`. Format: safetensors (length, JSON header, tensors)."""
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in _tensors(data):
        layer, _, half = name.removeprefix(TENSOR_PREFIX).rpartition(".lora_")
        if not layer or half not in {"A.weight", "B.weight"} or tensor.dim() != 2:
            raise _invalid(f"the tensor `{name}` is not part of a plain LoRA")
        if not bool(tensor.isfinite().all()):
            raise _invalid(f"the tensor `{name}` has values that are not finite")
        halves.setdefault(layer, {})[half[0]] = tensor
    pairs = {}
    for layer, found in halves.items():
        if set(found) != {"A", "B"} or found["A"].shape[0] != rank or found["B"].shape[1] != rank:
            raise _invalid(f"the matrices of `{layer}` do not fit each other or the rank")
        pairs[layer] = Pair(found["A"], found["B"])
    if not pairs:
        raise _invalid("it has no weights")
    return pairs


def _tensors(data: bytearray) -> Iterator[tuple[str, torch.Tensor]]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(HEADER_BYTES_MAX, len(data) - 8):
        raise _not_safetensors()
    try:
        header = msgspec.json.decode(data[8 : 8 + length], type=dict[str, Any])
        header.pop("__metadata__", None)
        entries = {name: msgspec.convert(entry, _Entry) for name, entry in header.items()}
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise _not_safetensors() from error
    for name, entry in entries.items():
        begin, end = (8 + length + at for at in entry.data_offsets)
        dtype, count = DTYPES.get(entry.dtype), math.prod(entry.shape)
        if dtype is None or min(entry.shape, default=0) < 1:
            raise _not_safetensors()
        if begin < 8 + length or end > len(data) or end - begin != count * dtype.itemsize:
            raise _not_safetensors()
        tensor = torch.frombuffer(data, dtype=dtype, count=count, offset=begin)
        yield name, tensor.view(entry.shape)


def _not_safetensors() -> Error:
    return _invalid(f"{WEIGHTS} is not a safetensors file of floating-point tensors")


def unlink(directory: Path) -> None:
    """Remove an adapter's files and their directory."""
    for name in (CONFIG, WEIGHTS):
        (directory / name).unlink(missing_ok=True)
    try:
        directory.rmdir()
    except OSError:
        return  # It does not exist, or holds unknown files.


def _invalid(reason: str) -> Error:
    return Error(
        Kind.INVALID,
        f"The adapter cannot be served: {reason}.",
        param="path",
        code=Code.INVALID_ADAPTER,
    )

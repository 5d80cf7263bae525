"""Shapes of a base model's linear layers, read from its files' headers, without torch."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunewarden.artifacts.safetensors_header import (
    LENGTH_BYTES,
    Tensor,
    header_length,
    parse_header,
)
from tunewarden.artifacts.strict_json import Malformed, parse_object
from tunewarden.errors import Error, Kind

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors")
_WEIGHT = ".weight"
# Two-dimensional weights that are not linear layers an adapter may change.
_NOT_ADAPTED = re.compile(r"(?:lm_head|embed_out|wte|wpe|.*embed.*|.*norm.*)", re.IGNORECASE)
_FLOATS = frozenset({"F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2"})
# Their layers are Conv1D, whose weights are transposed.
_TRANSPOSED = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})

_MAX_CONFIG_BYTES = 1024 * 1024
_MAX_INDEX_BYTES = 64 * 1024 * 1024
_MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
_MAX_TENSORS = 200_000
_MAX_VALUES = 1_000_000


@dataclass(frozen=True, slots=True)
class BaseShape:
    """A base's name, and (out_features, in_features) of each linear layer by its module path."""

    name: str
    modules: Mapping[str, tuple[int, int]]


def base_shape(directory: Path, name: str) -> BaseShape:
    """Read the shape of a local Hugging Face base. Raises `Error` INVALID, code `invalid_base`."""
    if not directory.is_dir():
        raise _refusal("The base's directory does not exist on the server.")
    config = _json(directory / "config.json", _MAX_CONFIG_BYTES)
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in _TRANSPOSED:
        raise _refusal(f"Bases of type {kind} are not supported: they have no linear layers.")
    modules = {}
    for tensor in _tensors(directory):
        module, _, leaf = tensor.name.removesuffix(_WEIGHT).rpartition(".")
        if not tensor.name.endswith(_WEIGHT) or len(tensor.shape) != 2:
            continue
        if tensor.dtype in _FLOATS and not _NOT_ADAPTED.fullmatch(leaf):
            modules[f"{module}.{leaf}" if module else leaf] = (tensor.shape[0], tensor.shape[1])
    if not modules:
        message = (
            "The base has no linear layers in floating point; quantized files are not supported."
        )
        raise _refusal(message)
    return BaseShape(name=name, modules=modules)


def _tensors(directory: Path) -> Iterator[Tensor]:
    for file in _weight_files(directory):
        try:
            with (directory / file).open("rb") as weights:
                size = (directory / file).stat().st_size
                first = weights.read(LENGTH_BYTES)
                length = header_length(first, file_bytes=size, max_bytes=_MAX_HEADER_BYTES)
                header = weights.read(length)
            data_bytes = size - LENGTH_BYTES - length
            yield from parse_header(header, data_bytes=data_bytes, max_tensors=_MAX_TENSORS)
        except Malformed as error:
            raise _refusal(f"The base's {file} {error}.") from error
        except OSError as error:
            raise _refusal(f"The base's {file} is missing or cannot be read.") from error


def _weight_files(directory: Path) -> list[str]:
    if (directory / _SINGLE).is_file():
        return [_SINGLE]
    if not (directory / _INDEX).is_file():
        if any(directory.glob("*.bin")) or any(directory.glob("*.pt*")):
            message = "The base has only pickle weights; convert them to safetensors first."
            raise _refusal(message)
        raise _refusal(f"The base has no {_SINGLE} and no {_INDEX}.")
    files = _json(directory / _INDEX, _MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise _refusal(f"The base's {_INDEX} has no weight_map.")
    if not all(isinstance(file, str) and _SHARD.fullmatch(file) for file in files.values()):
        raise _refusal(
            f"The base's {_INDEX} names a file that is not a safetensors file beside it."
        )
    return sorted(set(files.values()))


def _json(path: Path, max_bytes: int) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise _refusal(f"The base has no readable {path.name}.") from error
    if len(data) > max_bytes:
        raise _refusal(f"The base's {path.name} is larger than {max_bytes} bytes.")
    try:
        return parse_object(data, max_values=_MAX_VALUES)
    except Malformed as error:
        raise _refusal(f"The base's {path.name} {error}.") from error


def _refusal(message: str) -> Error:
    return Error(Kind.INVALID, message, param="base", code="invalid_base")

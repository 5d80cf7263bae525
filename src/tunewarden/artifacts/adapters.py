"""Validates untrusted LoRA adapters before a byte of them is stored. # DESIGN §7.

Two files are parsed; nothing is executed or extracted. All refusals are `Error` INVALID with the
code `invalid_adapter`. An accepted adapter has finite weights that fit the base, and a rewritten config.
"""

import hashlib
import mmap
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tunewarden.artifacts.adapter_config import (
    AdapterConfig,
    expected_modules,
    parse_config,
    shortest_targets,
)
from tunewarden.artifacts.base_shapes import BaseShape, base_shape
from tunewarden.artifacts.safetensors_header import (
    LENGTH_BYTES,
    Tensor,
    header_length,
    parse_header,
)
from tunewarden.artifacts.strict_json import Malformed, shown
from tunewarden.errors import Error, Kind

__all__ = [
    "DEFAULT_LIMITS",
    "BaseShape",
    "CheckedAdapter",
    "Limits",
    "base_shape",
    "check_adapter",
    "read_adapter_directory",
]

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")

# Tensor names that are not plain LoRA, and where they come from.
_FOREIGN = {
    "lora_magnitude_vector": "DoRA adapters are not supported; train with use_dora=False",
    "lora_embedding_": "adapted embeddings are not supported",
    ".bias": "trained biases are not supported; train with bias='none'",
}
_SIGNATURES = (
    (0, b"PK\x03\x04", "a zip archive or a torch pickle"),
    (0, b"\x80\x02", "a pickle"),
    (0, b"\x80\x03", "a pickle"),
    (0, b"\x80\x04", "a pickle"),
    (0, b"\x80\x05", "a pickle"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x89HDF", "an HDF5 file"),
    (257, b"ustar", "a tar archive"),
)
# For each dtype the unsigned integer of its width, and the bits that are all set in NaN and in
# infinity, and only there. numpy has no bfloat16 and needs none for this.
_EXPONENTS = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000)}
_CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Size limits of an adapter, and the highest rank that the engines serve."""

    max_rank: int = 64
    max_tensors: int = 20_000
    max_config_bytes: int = 64 * 1024
    max_header_bytes: int = 8 * 1024 * 1024
    max_weights_bytes: int = 2 * 1024 * 1024 * 1024


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class CheckedAdapter:
    """An adapter that fits its base. `config` is rewritten, canonical JSON; the weights are unchanged."""

    config: bytes
    rank: int
    target_modules: tuple[str, ...]
    tensors: int
    parameters: int
    weights_bytes: int
    weights_sha256: str


def check_adapter(
    config: bytes,
    weights: bytes | memoryview | mmap.mmap,
    base: BaseShape,
    limits: Limits = DEFAULT_LIMITS,
) -> CheckedAdapter:
    """Check a PEFT LoRA against its base and return it with its config rewritten.

    `weights` is a complete `adapter_model.safetensors`; it is mapped and read in chunks, and must
    not change during the call. Raises `Error` INVALID, param `adapter_config` or `adapter_model`.
    """
    checked = parse_config(config, max_bytes=limits.max_config_bytes, max_rank=limits.max_rank)
    expected = expected_modules(checked, base)
    with memoryview(weights) as buffer, buffer.cast("B") as view:
        tensors, data_start = _read_header(view, limits)
        modules = _check_fit(tensors, checked, base, expected)
        for tensor in tensors:
            if not _is_finite(view, data_start, tensor):
                raise _refusal(f"The weights hold NaN or infinity, in {shown(tensor.name)}.")
        digest = hashlib.sha256(view).hexdigest()
        size = len(view)
    return CheckedAdapter(
        config=checked.rewritten(base, modules),
        rank=checked.rank,
        target_modules=tuple(shortest_targets(base, modules)),
        tensors=len(tensors),
        parameters=sum(tensor.shape[0] * tensor.shape[1] for tensor in tensors),
        weights_bytes=size,
        weights_sha256=digest,
    )


def read_adapter_directory(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[bytes, BinaryIO]:
    """Return the bytes of a directory's adapter config and its weights, opened for reading.

    Only the two fixed names are opened, and only as regular files: no link, pipe or device is
    followed or waited for. The caller closes the file. Raises `Error` INVALID.
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal("The adapter's directory does not exist or cannot be read.") from error
    try:
        with _open_regular(directory, _CONFIG, limits.max_config_bytes) as file:
            config = file.read(limits.max_config_bytes + 1)
        return config, _open_regular(directory, _WEIGHTS, limits.max_weights_bytes)
    finally:
        os.close(directory)


def _open_regular(directory: int, name: str, max_bytes: int) -> BinaryIO:
    param = "adapter_config" if name == _CONFIG else "adapter_model"
    # O_NONBLOCK: opening a pipe must not wait for its writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError as error:
        if name == _WEIGHTS and _PICKLED in os.listdir(directory):
            message = f"{_PICKLED} is a pickle and is not read; save the adapter as safetensors."
            raise _refusal(message) from error
        raise _refusal(f"The directory has no {name}.", param) from error
    except OSError as error:
        message = f"{name} is a link or cannot be read; copy the file itself into the directory."
        raise _refusal(message, param) from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= max_bytes:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise _refusal(f"{name} is {status.st_size} bytes; at most {max_bytes} are read.", param)
    raise _refusal(f"{name} is not a regular file.", param)


def _read_header(view: memoryview, limits: Limits) -> tuple[list[Tensor], int]:
    """Return the tensors and the offset of their data."""
    if len(view) > limits.max_weights_bytes:
        raise _refusal(
            f"{_WEIGHTS} is {len(view)} bytes; at most {limits.max_weights_bytes} are read."
        )
    for offset, signature, kind in _SIGNATURES:
        if bytes(view[offset : offset + len(signature)]) == signature:
            raise _refusal(f"{_WEIGHTS} is {kind}; save the adapter as safetensors.")
    try:
        first = bytes(view[:LENGTH_BYTES])
        length = header_length(first, file_bytes=len(view), max_bytes=limits.max_header_bytes)
        start = LENGTH_BYTES + length
        header = bytes(view[LENGTH_BYTES:start])
        data_bytes = len(view) - start
        tensors = parse_header(header, data_bytes=data_bytes, max_tensors=limits.max_tensors)
    except Malformed as error:
        raise _refusal(f"{_WEIGHTS} {error}.") from error
    return tensors, start


def _check_fit(
    tensors: list[Tensor],
    config: AdapterConfig,
    base: BaseShape,
    expected: frozenset[str] | None,
) -> list[str]:
    """Return the adapted modules: each has both matrices, in the shapes that the base requires."""
    sides: dict[str, str] = {}
    for tensor in tensors:
        module, side = _placed(tensor, config.rank, base)
        sides[module] = sides.get(module, "") + side
    if not sides:
        raise _refusal(f"{_WEIGHTS} holds no weights.")
    for module, found in sides.items():
        if len(found) != 2:
            raise _refusal(f"{shown(module)} has lora_{found} only; lora_A and lora_B go together.")
    if expected is not None and sides.keys() != expected:
        missing, extra = sorted(expected - sides.keys()), sorted(sides.keys() - expected)
        if missing:
            raise _refusal(f"target_modules covers {shown(missing[0])}, but it has no weights.")
        raise _refusal(f"{shown(extra[0])} has weights, but target_modules does not cover it.")
    return sorted(sides)


def _placed(tensor: Tensor, rank: int, base: BaseShape) -> tuple[str, str]:
    """Return the module and the side, A or B, of one tensor, after checking its shape and dtype."""
    match = _NAME.fullmatch(tensor.name)
    if match is None:
        reasons = (reason for mark, reason in _FOREIGN.items() if mark in tensor.name)
        reason = next(reasons, "only plain LoRA weights are read; train with modules_to_save=None")
        raise _refusal(f"{shown(tensor.name)} is no LoRA weight: {reason}.")
    module, side = match["module"], match["side"]
    if module not in base.modules:
        raise _refusal(
            f"The base {base.name} has no linear layer {shown(module)}. Was the adapter trained on "
            "another base?"
        )
    if tensor.dtype not in _EXPONENTS:
        raise _refusal(f"{shown(tensor.name)} is {tensor.dtype}; save it as F32, F16 or BF16.")
    outputs, inputs = base.modules[module]
    wanted = (rank, inputs) if side == "A" else (outputs, rank)
    if tensor.shape != wanted:
        raise _refusal(
            f"{shown(tensor.name)} has the shape {shown(list(tensor.shape))}; rank {rank} on the "
            f"base {base.name} needs {list(wanted)}."
        )
    return module, side


def _is_finite(view: memoryview, data_start: int, tensor: Tensor) -> bool:
    # Imported late, so that a gateway worker without imports does not load numpy.
    import numpy as np  # noqa: PLC0415  see above

    kind, exponent = _EXPONENTS[tensor.dtype]
    for start in range(data_start + tensor.start, data_start + tensor.end, _CHUNK_BYTES):
        end = min(start + _CHUNK_BYTES, data_start + tensor.end)
        bits = np.frombuffer(view[start:end], dtype=kind) & exponent
        if bool((bits == exponent).any()):
            return False
    return True


def _refusal(message: str, param: str = "adapter_model") -> Error:
    return Error(Kind.INVALID, message, param=param, code="invalid_adapter")

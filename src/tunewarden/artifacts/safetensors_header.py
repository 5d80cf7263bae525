"""A strict parser of safetensors headers.

Eight bytes give the header's length (little endian), then JSON, then the tensors' data without a
gap (https://github.com/huggingface/safetensors, section "Format").
"""

import math
from dataclasses import dataclass

from tunewarden.artifacts.strict_json import Malformed, parse_object, shown

LENGTH_BYTES = 8

_ELEMENT_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_MAX_DIMENSIONS = 8
_MAX_OFFSET = 1 << 48
# JSON values per tensor: ten, for its entry, a dtype, a shape of two and a pair of offsets, with brackets.
_VALUES_PER_TENSOR = 12
_METADATA_VALUES = 4096


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. `start` and `end` are offsets in bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def header_length(first: bytes, *, file_bytes: int, max_bytes: int) -> int:
    """Return the header's length from the file's first eight bytes. Raises `Malformed`."""
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if len(first) < LENGTH_BYTES or length < 2:
        raise Malformed("is too short to be a safetensors file")
    if length > file_bytes - LENGTH_BYTES:
        raise Malformed(
            "is cut short, or is not a safetensors file: its header would end beyond it"
        )
    if length > max_bytes:
        raise Malformed(f"has a header of {length} bytes; at most {max_bytes} are read")
    return length


def parse_header(header: bytes, *, data_bytes: int, max_tensors: int) -> list[Tensor]:
    """Return the tensors in the order of their bytes. Raises `Malformed`.

    They cover the `data_bytes` after the header exactly: no gap, no overlap, no trailing bytes.
    """
    if header[:1] != b"{":
        raise Malformed("is not a safetensors file: its header is not a JSON object")
    fields = parse_object(header, max_values=max_tensors * _VALUES_PER_TENSOR + _METADATA_VALUES)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Malformed("has a __metadata__ that is not a map of texts")
    if len(fields) > max_tensors:
        raise Malformed(f"holds {len(fields)} tensors; at most {max_tensors} are read")
    tensors = sorted((_tensor(n, e) for n, e in fields.items()), key=lambda t: (t.start, t.end))
    position = 0
    for tensor in tensors:
        if tensor.start != position:
            raise Malformed(f"has a gap or an overlap before the tensor {shown(tensor.name)}")
        position = tensor.end
    if position > data_bytes:
        raise Malformed("is cut short: the last tensor ends beyond the file")
    if position < data_bytes:
        raise Malformed(f"holds {data_bytes - position} bytes that belong to no tensor")
    return tensors


def _tensor(name: str, entry: object) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Malformed(f"does not say dtype, shape and data_offsets of {shown(name)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    bits = _ELEMENT_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise Malformed(f"has the unknown dtype {shown(dtype)} for {shown(name)}")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise Malformed(f"has an impossible shape for {shown(name)}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Malformed(f"has impossible offsets for {shown(name)}")
    start, end = offsets
    if math.prod(shape) * bits != (end - start) * 8:
        raise Malformed(f"has offsets for {shown(name)} that do not fit its shape and dtype")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), start=start, end=end)


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < _MAX_OFFSET for v in value)

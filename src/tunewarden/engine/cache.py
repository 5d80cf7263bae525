"""The keys and values of a batch: rows join and leave, every row ends at the same column.

Rows are padded on the left. One layer's tensors are [rows, heads, columns, head size]; they have spare
columns behind, so that a step writes its own and does not copy all the others.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

SPARE_COLUMNS = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """A cache layer with spare columns."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._room_keys: torch.Tensor | None = None
        self._room_values: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns; return all of them (transformers' contract of a cache layer)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.adopt(key_states[:, :, :0], value_states[:, :, :0])
        used = self.keys.shape[-2]
        columns = used + key_states.shape[-2]
        if self._room_keys is None or self._room_keys.shape[-2] < columns:
            self.adopt(self.keys, self.values, key_states.shape[-2])
        assert self._room_keys is not None
        assert self._room_values is not None
        self._room_keys[:, :, used:columns] = key_states
        self._room_values[:, :, used:columns] = value_states
        self.keys = self._room_keys[:, :, :columns]
        self.values = self._room_values[:, :, :columns]
        return self.keys, self.values

    def adopt(self, keys: torch.Tensor, values: torch.Tensor, columns: int = 0) -> None:
        """Take over these columns with room for `columns` more and some to spare."""
        self._room_keys = _with_room(keys, columns + SPARE_COLUMNS)
        self._room_values = _with_room(values, columns + SPARE_COLUMNS)
        self.keys = self._room_keys[:, :, : keys.shape[-2]]
        self.values = self._room_values[:, :, : values.shape[-2]]


def new_cache() -> Any:
    """Return an empty cache; it grows a RoomyLayer for each layer of the model on first use."""
    return Cache(layer_class_to_replicate=RoomyLayer)


def is_roomy(cache: Any) -> bool:
    """Tell whether the model used the cache as plain attention does, so that rows can join and leave."""
    return bool(cache.layers) and all(
        isinstance(layer, RoomyLayer) and layer.is_initialized for layer in cache.layers
    )


def keep_rows(cache: Any, rows: Sequence[int], trim: int) -> None:
    """Keep these rows, in this order, without their first `trim` columns; overwrite the others."""
    index = torch.tensor(rows, dtype=torch.long)
    for layer in cache.layers:
        old = layer.keys, layer.values
        layer.adopt(layer.keys[index, :, trim:], layer.values[index, :, trim:])
        for tensor in old:
            tensor.zero_()


def erase(cache: Any) -> None:
    """Overwrite every key and value with zeros."""
    for layer in cache.layers:
        if layer.is_initialized:
            layer.keys.zero_()
            layer.values.zero_()


def join(cache: Any, other: Any) -> None:
    """Append the rows of `other`, padding the shorter of both on the left."""
    for mine, theirs in zip(cache.layers, other.layers, strict=True):
        columns = max(mine.keys.shape[-2], theirs.keys.shape[-2])
        old = mine.keys, mine.values
        mine.adopt(
            torch.cat([_padded(mine.keys, columns), _padded(theirs.keys, columns)]),
            torch.cat([_padded(mine.values, columns), _padded(theirs.values, columns)]),
        )
        for tensor in (*old, theirs.keys, theirs.values):
            tensor.zero_()


def _padded(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, (0, 0, columns - tensor.shape[-2], 0))


def _with_room(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    rows, heads, used, size = tensor.shape
    room = tensor.new_zeros(rows, heads, used + columns, size)
    room[:, :, :used] = tensor
    return room

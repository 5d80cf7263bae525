"""The KV cache of a batch: rows join and leave, and every row ends at the same column.

Rows are padded on the left. One layer's tensors are [rows, heads, columns, head size], with spare columns at the
end, so that a step writes its own column without copying. Memory left behind by a change of rows or size is
overwritten with zeros before it is freed (D5).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

SPARE_COLUMNS = 64

# Rows of a layer to keep: their offset in the new layer, their keys, their values.
Piece = tuple[int, torch.Tensor, torch.Tensor]


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
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        rows, _heads, new, _size = key_states.shape
        used = self.keys.shape[-2]
        columns = used + new
        if self._room_keys is None or self._room_keys.shape[-2] < columns:
            self.rebuild(rows, used, [(0, self.keys, self.values)], spare=new + SPARE_COLUMNS)
        assert self._room_keys is not None
        assert self._room_values is not None
        self._room_keys[:, :, used:columns] = key_states
        self._room_values[:, :, used:columns] = value_states
        self.keys = self._room_keys[:, :, :columns]
        self.values = self._room_values[:, :, :columns]
        return self.keys, self.values

    def crop(self, columns: int) -> None:
        """Truncate to the first `columns` columns; overwrite the others."""
        if self.is_initialized and self.keys.shape[-2] > columns:
            self.keys[:, :, columns:].zero_()
            self.values[:, :, columns:].zero_()
            self.keys, self.values = self.keys[:, :, :columns], self.values[:, :, :columns]

    def rebuild(
        self, rows: int, columns: int, pieces: Iterable[Piece], *, spare: int = SPARE_COLUMNS
    ) -> None:
        """Replace the content by these pieces, each ending at the last column; overwrite the old content.

        They are copied directly: an intermediate copy would stay behind in freed memory.
        """
        old = self._room_keys, self._room_values
        keys = self.keys.new_zeros(rows, self.keys.shape[1], columns + spare, self.keys.shape[3])
        shape = rows, self.values.shape[1], columns + spare, self.values.shape[3]
        values = self.values.new_zeros(shape)
        for first, piece_keys, piece_values in pieces:
            count, used = piece_keys.shape[0], piece_keys.shape[2]
            keys[first : first + count, :, columns - used : columns] = piece_keys
            values[first : first + count, :, columns - used : columns] = piece_values
        for tensor in old:
            if tensor is not None:
                tensor.zero_()
        self._room_keys, self._room_values = keys, values
        self.keys, self.values = keys[:, :, :columns], values[:, :, :columns]


def new_cache() -> Any:
    """Return an empty cache; it grows a RoomyLayer for each layer of the model on first use."""
    return Cache(layer_class_to_replicate=RoomyLayer)


def is_roomy(cache: Any) -> bool:
    """Return whether the model used the cache like plain attention, so that rows can join and leave."""
    return bool(cache.layers) and all(
        isinstance(layer, RoomyLayer) and layer.is_initialized for layer in cache.layers
    )


def keep_rows(cache: Any, rows: Sequence[int], trim: int) -> None:
    """Keep these rows, in this order, without their first `trim` columns; overwrite the others."""
    for layer in cache.layers:
        keys, values = layer.keys[:, :, trim:], layer.values[:, :, trim:]
        layer.rebuild(
            len(rows),
            keys.shape[2],
            [(at, keys[row : row + 1], values[row : row + 1]) for at, row in enumerate(rows)],
        )


def crop(cache: Any, columns: int) -> None:
    """Truncate all layers to the first `columns` columns; overwrite the others."""
    for layer in cache.layers:
        layer.crop(columns)


def erase(cache: Any) -> None:
    """Overwrite every key and value with zeros."""
    for layer in cache.layers:
        if layer.is_initialized:
            layer.keys.zero_()
            layer.values.zero_()


def join(cache: Any, other: Any) -> None:
    """Append the rows of `other`, padding the shorter of both on the left, and overwrite `other`."""
    for mine, theirs in zip(cache.layers, other.layers, strict=True):
        here = mine.keys.shape[0]
        mine.rebuild(
            here + theirs.keys.shape[0],
            max(mine.keys.shape[2], theirs.keys.shape[2]),
            [(0, mine.keys, mine.values), (here, theirs.keys, theirs.values)],
        )
    erase(other)

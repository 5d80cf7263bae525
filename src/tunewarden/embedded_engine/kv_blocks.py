"""The memory of the prefix cache: KV blocks, preallocated and identified by number.

Consecutive numbers are adjacent in memory, so that a whole prompt is copied in or out with one operation per layer.
Pages that were never written cost no memory. A freed block is overwritten with zeros at once (D5).
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import torch

BLOCK_TOKENS = 32


class Arena:
    """Blocks of BLOCK_TOKENS columns in this cache's shape, as many as fit into `bytes_max`."""

    def __init__(self, cache: Any, bytes_max: int) -> None:
        states = [state for layer in cache.layers for state in (layer.keys, layer.values)]
        sizes = [state[0, :, 0].numel() * BLOCK_TOKENS for state in states]
        self.bytes_of_block = sum(sizes) * states[0].element_size()
        blocks = bytes_max // self.bytes_of_block
        # [blocks, all layers' keys and values]: a block is contiguous.
        self.blocks = states[0].new_empty(blocks, sum(sizes))
        self._states: list[torch.Tensor] = [
            part.view(blocks, state.shape[1], BLOCK_TOKENS, state.shape[3])
            for part, state in zip(self.blocks.split(sizes, 1), states, strict=True)
        ]
        # A heap: the lowest numbers are used first, to keep used memory compact.
        self._free = list(range(blocks))

    @property
    def layers(self) -> int:
        """Return the number of layers in a block."""
        return len(self._states) // 2

    def empty(self, number: int, rows: int, columns: int) -> torch.Tensor:
        """Return zeros of the shape of state `number`: [rows, heads, columns, head size]."""
        _blocks, heads, _tokens, size = self._states[number].shape
        zeros: torch.Tensor = self.blocks.new_zeros(rows, heads, columns, size)
        return zeros

    def take(self) -> int:
        """Return a free block. Raises IndexError if there is none."""
        return heapq.heappop(self._free)

    def give_back(self, block: int) -> None:
        """Overwrite a block with zeros and free it."""
        self.blocks[block].zero_()
        heapq.heappush(self._free, block)

    def write(self, blocks: Sequence[int], cache: Any, row: int, first: int) -> None:
        """Copy a row's columns from `first` on into these blocks, in order."""
        for at, block, count in _stretches(blocks):
            begin = first + at * BLOCK_TOKENS
            columns = slice(begin, begin + count * BLOCK_TOKENS)
            states = (state for layer in cache.layers for state in (layer.keys, layer.values))
            for mine, state in zip(self._states, states, strict=True):
                mine[block : block + count].copy_(_in_blocks(state[row, :, columns]))

    def read(self, blocks: Sequence[int], number: int, into: torch.Tensor) -> None:
        """Copy state `number` (layers in order, keys before values) of these blocks, in order.

        `into`: [heads, tokens, head size]; it may have fewer tokens than the blocks.
        """
        mine, tokens = self._states[number], into.shape[1]
        whole = tokens // BLOCK_TOKENS
        for at, block, count in _stretches(blocks[:whole]):
            columns = slice(at * BLOCK_TOKENS, (at + count) * BLOCK_TOKENS)
            _in_blocks(into[:, columns]).copy_(mine[block : block + count])
        if rest := tokens % BLOCK_TOKENS:
            into[:, whole * BLOCK_TOKENS :] = mine[blocks[whole], :, :rest]


def _in_blocks(columns: torch.Tensor) -> torch.Tensor:
    """Return a view of [heads, tokens, head size] as [blocks, heads, BLOCK_TOKENS, head size]."""
    heads, _tokens, size = columns.shape
    return columns.view(heads, -1, BLOCK_TOKENS, size).transpose(0, 1)


def _stretches(blocks: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (index, first number, length) of each run of consecutive numbers."""
    at = 0
    while at < len(blocks):
        count = 1
        while at + count < len(blocks) and blocks[at + count] == blocks[at] + count:
            count += 1
        yield at, blocks[at], count
        at += count

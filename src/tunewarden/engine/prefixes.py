"""The keys and values of prompts that were read before, for the same model's next request.

Kept in blocks of a fixed number of tokens. A block is found by its model and by everything that was
said up to its end: adapters change keys and values, so nothing is ever shared between two models.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """BLOCK_TOKENS columns: each layer's keys and values, [heads, tokens, head size]."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def bytes_held(self) -> int:
        """Return its size in bytes."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def erase(self) -> None:
        """Overwrite it with zeros."""
        for keys, values in self.layers:
            keys.zero_()
            values.zero_()


class Prefixes:
    """At most `bytes_max` of blocks, the least recently used let go first. Belongs to the step thread.

    A model is its internal id, or None for the base itself. Tokens are kept as digests only.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_held = 0
        self.tokens_reused = 0
        self.blocks_erased = 0
        self._blocks: OrderedDict[tuple[str | None, bytes], Block] = OrderedDict()

    def __len__(self) -> int:
        """Return how many blocks are held."""
        return len(self._blocks)

    def find(self, model: str | None, prompt: Sequence[int]) -> list[Block]:
        """Return the blocks that a model's prompt begins with.

        One token at least is left to be read: its logits are what the answer begins with.
        """
        found = []
        keys = self._keys(model, prompt[:-1])
        for key in keys:
            block = self._blocks.get(key)
            if block is None:
                break
            found.append(block)
        self._touch(keys[: len(found)])
        return found

    def store(
        self, model: str | None, prompt: Sequence[int], cache: Any, row: int, first: int
    ) -> None:
        """Copy what is not yet held of a prompt that has just been read.

        It is in `row` of the cache and begins at the column `first`.
        """
        if len(prompt) < BLOCK_TOKENS or not self.bytes_max:
            return
        keys = self._keys(model, prompt)
        held = 0
        while held < len(keys) and keys[held] in self._blocks:
            held += 1
        # The beginning is touched first: what is let go to make room is another prompt's.
        self._touch(keys[:held])
        for at in range(held, len(keys)):
            begin = first + at * BLOCK_TOKENS
            end = begin + BLOCK_TOKENS
            if at == held:
                size = _bytes_of(cache, begin, end)
                keys = keys[: self.bytes_max // size]
            if at >= len(keys):
                break
            self._shrink(self.bytes_max - size)
            layers = tuple(
                (layer.keys[row, :, begin:end].clone(), layer.values[row, :, begin:end].clone())
                for layer in cache.layers
            )
            self._blocks[keys[at]] = Block(layers)
            self.bytes_held += size
        self._touch(keys)

    def forget(self, model: str | None) -> None:
        """Overwrite and drop all that is held of a model (D5)."""
        for key in [key for key in self._blocks if key[0] == model]:
            self._drop(key)

    def clear(self) -> None:
        """Overwrite and drop everything."""
        self._shrink(0)

    def _shrink(self, bytes_max: int) -> None:
        while self.bytes_held > bytes_max:
            self._drop(next(iter(self._blocks)))

    def _drop(self, key: tuple[str | None, bytes]) -> None:
        block = self._blocks.pop(key)
        self.bytes_held -= block.bytes_held
        self.blocks_erased += 1
        block.erase()

    def _touch(self, keys: Sequence[tuple[str | None, bytes]]) -> None:
        """Make a prompt's blocks the newest, its first one last: no block outlives its beginning."""
        for key in reversed(keys):
            self._blocks.move_to_end(key)

    @staticmethod
    def _keys(model: str | None, prompt: Sequence[int]) -> list[tuple[str | None, bytes]]:
        """Return the key of each whole block: the model and a digest of all tokens up to its end."""
        digest = hashlib.sha256()
        keys = []
        for end in range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS):
            digest.update(array("q", prompt[end - BLOCK_TOKENS : end]).tobytes())
            keys.append((model, digest.digest()))
        return keys


def _bytes_of(cache: Any, begin: int, end: int) -> int:
    return sum(
        tensor[:1, :, begin:end].nbytes
        for layer in cache.layers
        for tensor in (layer.keys, layer.values)
    )

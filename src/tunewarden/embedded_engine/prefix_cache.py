"""Prefix cache: keys and values of earlier prompts, for later requests on the same model.

Stored in blocks of a fixed number of tokens. A block's key is its model and all tokens up to its end:
adapters change keys and values, so models never share blocks. On a base, which organizations share, each
organization finds only its own blocks: response times would otherwise reveal others' prompts.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from tunewarden.embedded_engine.kv_blocks import BLOCK_TOKENS, Arena

# The model (None: the base itself), and a digest of the organization and all tokens up to the block's end.
Key = tuple[str | None, bytes]


class Prefixes:
    """An LRU cache of at most `bytes_max`. Used by the step thread only.

    A model is its internal id, or None for the base itself. Tokens are stored as digests only.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.tokens_reused = 0
        self.blocks_erased = 0
        self.arena: Arena | None = None
        self._blocks: OrderedDict[Key, int] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of cached blocks."""
        return len(self._blocks)

    @property
    def bytes_held(self) -> int:
        """Return the bytes of the cached blocks."""
        return 0 if self.arena is None else len(self._blocks) * self.arena.bytes_of_block

    def find(self, model: str | None, prompt: Sequence[int], asked_by: str = "") -> list[int]:
        """Return the cached blocks, by their numbers in the arena, that a model's prompt begins with.

        Leaves at least one token to compute: its logits give the first token of the response.
        """
        if not self._blocks:
            return []
        found = []
        keys = self._keys(model, prompt[:-1], asked_by)
        for key in keys:
            block = self._blocks.get(key)
            if block is None:
                break
            found.append(block)
        self._touch(keys[: len(found)])
        return found

    def store(
        self,
        model: str | None,
        prompt: Sequence[int],
        cache: Any,
        row: int,
        first: int,
        *,
        asked_by: str = "",
    ) -> None:
        """Cache the missing blocks of a prompt that was just computed.

        It is in `row` of the cache and begins at the column `first`.
        """
        if len(prompt) < BLOCK_TOKENS or not self.bytes_max:
            return
        if self.arena is None:
            self.arena = Arena(cache, self.bytes_max)
        room = self.bytes_max // self.arena.bytes_of_block
        keys = self._keys(model, prompt, asked_by)[:room]
        held = 0
        while held < len(keys) and keys[held] in self._blocks:
            held += 1
        # Touch the prompt's own blocks first, so that other prompts' blocks are evicted.
        self._touch(keys[:held])
        self._shrink(room - (len(keys) - held))
        blocks = [self.arena.take() for _ in keys[held:]]
        self.arena.write(blocks, cache, row, first + held * BLOCK_TOKENS)
        self._blocks.update(zip(keys[held:], blocks, strict=True))
        self._touch(keys)

    def forget(self, model: str | None) -> None:
        """Overwrite and drop all blocks of a model (D5)."""
        for key in [key for key in self._blocks if key[0] == model]:
            self._drop(key)

    def clear(self) -> None:
        """Overwrite and drop all blocks."""
        self._shrink(0)

    def _shrink(self, blocks_max: int) -> None:
        while len(self._blocks) > blocks_max:
            self._drop(next(iter(self._blocks)))

    def _drop(self, key: Key) -> None:
        assert self.arena is not None
        self.arena.give_back(self._blocks.pop(key))
        self.blocks_erased += 1

    def _touch(self, keys: Sequence[Key]) -> None:
        """Mark a prompt's blocks as most recently used, the first one last: no block outlives its prefix."""
        for key in reversed(keys):
            self._blocks.move_to_end(key)

    @staticmethod
    def _keys(model: str | None, prompt: Sequence[int], asked_by: str) -> list[Key]:
        """Return the key of each complete block: the model and a digest of all tokens up to its end."""
        digest = hashlib.sha256(asked_by.encode() + b"\0")
        keys: list[Key] = []
        for end in range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS):
            digest.update(array("q", prompt[end - BLOCK_TOKENS : end]).tobytes())
            keys.append((model, digest.digest()))
        return keys

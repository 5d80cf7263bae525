"""Chunked prefill: which waiting sequences join the batch next, and how many of their prompt tokens a step computes.

A step that computes prompts delays the sequences that are being decoded, so its tokens are bounded.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunewarden.embedded_engine import kv_cache as kv
from tunewarden.embedded_engine.kv_blocks import BLOCK_TOKENS, Arena
from tunewarden.embedded_engine.lora import Selection
from tunewarden.embedded_engine.prefix_cache import Prefixes
from tunewarden.embedded_engine.sequences import Row

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one step loop.

    A step prefills at most `prefill_tokens`, or `prefill_tokens_beside` while rows run:
    that bounds how long a join delays them. `prefix_bytes` is the size of the prefix cache.
    """

    # Per organization; the batch grows for others (waiting.py).
    rows: int = 32
    # Of all that waits; what a row may say counts with 1,024 at most.
    waiting_tokens: int = 1024 * 1024
    prefill_tokens: int = 256
    prefill_tokens_beside: int = 64
    prefix_bytes: int = 256 * MEBIBYTE


@dataclass(slots=True)
class Running:
    """Rows that advance together. `mask` [rows, columns] is 0 where a row is padded on the left."""

    rows: list[Row]
    mask: torch.Tensor
    cache: Any
    selection: Selection


@dataclass(slots=True)
class Joining:
    """Rows being prefilled; columns of `ids` [rows, columns] before `done` are computed."""

    batch: Running
    ids: torch.Tensor
    done: int

    @property
    def columns(self) -> int:
        """Return the length of the longest prompt."""
        return self.ids.shape[1]

    def store(self, prefixes: Prefixes) -> None:
        """Add the computed prompts to the prefix cache."""
        for at, row in enumerate(self.batch.rows):
            first = self.columns - len(row.prompt)
            prefixes.store(
                row.adapter, row.prompt, self.batch.cache, at, first, asked_by=row.asked_by
            )


def next_rows(candidates: Iterable[Row], tokens: int, prefixes: Prefixes) -> list[Row]:
    """Return the next rows to prefill, as many of the candidates as one step may compute.

    At least one, if there is any. Only a single row can have more than `tokens` to compute, so no
    chunk of a row is ever padding only.
    """
    chosen: list[Row] = []
    longest = 0
    for row in candidates:
        known = len(_known(row, prefixes)) * BLOCK_TOKENS
        longest = max(longest, len(row.prompt) - known)
        if chosen and (len(chosen) + 1) * longest > tokens:
            break
        if chosen and row.reports_prompt != chosen[0].reports_prompt:
            break  # logits of every column are computed for none that does not want them
        chosen.append(row)
    return chosen


def _known(row: Row, prefixes: Prefixes) -> list[int]:
    """Return the cached blocks that need not be computed: none if the prompt's logprobs are wanted."""
    if row.reports_prompt:
        return []
    return prefixes.find(row.adapter, row.prompt, row.asked_by)


def begin(
    rows: list[Row], prefixes: Prefixes, select: Callable[[Sequence[Row]], Selection]
) -> Joining:
    """Return rows ready for prefill, with cached prefixes filled in.

    Rows that a constraint holds come last, side by side: masks are applied from the first to the last one of them.
    """
    rows = sorted(rows, key=lambda row: row.matcher is not None)
    columns = max(len(row.prompt) for row in rows)
    ids = torch.zeros(len(rows), columns, dtype=torch.long)
    mask = torch.zeros_like(ids)
    known = [_known(row, prefixes) for row in rows]
    for at, row in enumerate(rows):
        ids[at, columns - len(row.prompt) :] = torch.tensor(row.prompt)
        mask[at, columns - len(row.prompt) :] = 1
    # All rows end at the same column, so the one with the most to compute determines the start.
    done = columns - max(
        len(row.prompt) - len(blocks) * BLOCK_TOKENS
        for row, blocks in zip(rows, known, strict=True)
    )
    starts = [columns - len(row.prompt) for row in rows]
    cache = kv.new_cache()
    if any(start < done for start in starts):
        assert prefixes.arena is not None
        _put(prefixes.arena, cache, known, starts, done)
        for row, start in zip(rows, starts, strict=True):
            row.tokens_reused = max(0, done - start)
            prefixes.tokens_reused += row.tokens_reused
    return Joining(Running(rows, mask, cache, select(rows)), ids, done)


def _put(
    arena: Arena, cache: Any, known: Sequence[list[int]], starts: Sequence[int], done: int
) -> None:
    """Fill the columns before `done` of an empty cache; each row's first token is at its start."""
    for layer in range(arena.layers):
        room = []
        for half in (0, 1):
            filled = arena.empty(2 * layer + half, len(known), done)
            for row, (blocks, start) in enumerate(zip(known, starts, strict=True)):
                if start < done:
                    arena.read(blocks, 2 * layer + half, filled[row, :, start:])
            room.append(filled)
        cache.update(*room, layer)
        for filled in room:
            filled.zero_()

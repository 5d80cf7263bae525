"""Batching: the order of examples, their grouping into steps, and their tensors.

A step's examples are split into micro-batches ("pieces") that fit into memory. Examples of similar length are
grouped, to reduce padding; if the attention supports it, sequences are packed
without padding.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch

from tunewarden.trainer.chats import Row
from tunewarden.trainer.examples import Example

# Batches sorted by length together: enough for similar lengths, few enough for randomness.
BATCHES_SORTED = 16
PAD = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """The input of one forward pass, with n target tokens.

    `ids` [rows, width] is padded on the right; attention is causal, so no mask is needed. `positions`
    is None unless sequences are packed. `columns` are those whose logits are needed, `places` [n] index
    into (rows x columns), row by row, and `targets` [n] are the labels of those logits. `owners` [n] is
    each target's row; the rows are those of the examples whose numbers `members` are, in order.
    `references` [members] is for DPO: how much the reference prefers the preferred answers.
    """

    ids: torch.Tensor
    positions: torch.Tensor | None
    columns: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    members: torch.Tensor
    rows: int
    tokens: int
    references: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Piece":
        """Return the piece on a device."""
        if device.type == "cpu":
            return self
        tensors: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return replace(self, **tensors)


class Order:
    """A batch sampler: the example numbers of each step. It depends on the seed and the epoch only.

    `epoch` is called when a pass begins, so that a resumed run draws the same order.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, epoch: Callable[[], int]
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield a list per step: all examples once, grouped by length, otherwise in random order."""
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self._epoch()) % 2**63)
        drawn = torch.randperm(len(self._lengths), generator=generator).tolist()
        size = self._batch_size
        pool = BATCHES_SORTED * size
        batches: list[list[int]] = []
        for start in range(0, len(drawn), pool):
            alike = sorted(drawn[start : start + pool], key=self._lengths.__getitem__)
            batches += [alike[at : at + size] for at in range(0, len(alike), size)]
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[number]


def length(example: Example) -> int:
    """Return the tokens of an example's longest row."""
    return max(len(row.ids) for row in example)


class Cutter:
    """Makes micro-batches of one file's examples. DPO sets `references` [examples] later."""

    def __init__(self, examples: Sequence[Example], *, tokens_max: int, is_packed: bool) -> None:
        self.examples = examples
        self.references: torch.Tensor | None = None
        self._tokens_max = tokens_max
        self._is_packed = is_packed

    def pieces(self, numbers: Sequence[int]) -> list[Piece]:
        """Return pieces of at most `tokens_max` tokens, padding included; no example is divided."""
        build = _packed if self._is_packed else _padded
        found = [build([self.examples[n] for n in group], group) for group in self._groups(numbers)]
        if self.references is None:
            return found
        return [replace(piece, references=self.references[piece.members]) for piece in found]

    def all_pieces(self) -> list[Piece]:
        """Return the pieces of all examples."""
        return self.pieces(range(len(self.examples)))

    def _groups(self, numbers: Sequence[int]) -> list[list[int]]:
        ordered = sorted(numbers, key=lambda number: length(self.examples[number]), reverse=True)
        found: list[list[int]] = []
        width = rows = tokens = 0
        for number in ordered:
            example = self.examples[number]
            size = sum(len(row.ids) for row in example)
            most = tokens + size if self._is_packed else width * (rows + len(example))
            if not found or most > self._tokens_max:
                found.append([])
                width, rows, tokens = length(example), 0, 0
            found[-1].append(number)
            rows += len(example)
            tokens += size
        return found


def _padded(examples: Sequence[Example], members: Sequence[int]) -> Piece:
    rows = [row for example in examples for row in example]
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), PAD, dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = _tensor(row)
    # A token is predicted by the logits of the column before it.
    starts = [start - 1 for row in rows for start, _ in row.spans]
    first = min(starts)
    columns = torch.arange(first, width - 1)
    places = [
        at * len(columns) + column - first
        for at, row in enumerate(rows)
        for start, end in row.spans
        for column in range(start - 1, end - 1)
    ]
    return _piece(
        rows, members, ids=ids, positions=None, columns=columns, places=torch.tensor(places)
    )


def _packed(examples: Sequence[Example], members: Sequence[int]) -> Piece:
    rows = [row for example in examples for row in example]
    ids = torch.cat([_tensor(row) for row in rows])[None]
    positions = torch.cat([torch.arange(len(row.ids)) for row in rows])[None]
    begins = [0]
    for row in rows:
        begins.append(begins[-1] + len(row.ids))
    columns = [
        column
        for row, (begin, _) in zip(rows, pairwise(begins), strict=True)
        for start, end in row.spans
        for column in range(begin + start - 1, begin + end - 1)
    ]
    return _piece(
        rows,
        members,
        ids=ids,
        positions=positions,
        columns=torch.tensor(columns),
        places=torch.arange(len(columns)),
    )


def _piece(
    rows: Sequence[Row],
    members: Sequence[int],
    *,
    ids: torch.Tensor,
    positions: torch.Tensor | None,
    columns: torch.Tensor,
    places: torch.Tensor,
) -> Piece:
    targets = torch.cat([_tensor(row)[start:end] for row in rows for start, end in row.spans])
    learned = torch.tensor([row.learned for row in rows])
    owners = torch.repeat_interleave(torch.arange(len(rows)), learned)
    return Piece(
        ids=ids,
        positions=positions,
        columns=columns,
        places=places,
        targets=targets,
        owners=owners,
        members=torch.tensor(members),
        rows=len(rows),
        tokens=sum(len(row.ids) for row in rows),
    )


def _tensor(row: Row) -> torch.Tensor:
    return torch.frombuffer(row.ids, dtype=torch.int32).long()

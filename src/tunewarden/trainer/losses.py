"""The training objectives, on log-probabilities of target tokens: supervised, and DPO.

DPO (Rafailov et al. 2023, equation 7): -log sigmoid(beta * margin), where the margin is how much more
than the reference the model prefers the preferred answer. The reference is the model before
training; it is evaluated once, before training, so no second copy is in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional

from tunewarden.trainer.batches import Cutter, Piece


@dataclass(frozen=True, slots=True)
class Outcome:
    """Sums over a micro-batch: `loss` (with its graph), correct predictions, and their count."""

    loss: torch.Tensor
    right: torch.Tensor
    count: int


class Objective(Protocol):
    """An objective."""

    def __call__(self, model: Any, piece: Piece) -> Outcome:
        """Run the model on a piece."""

    def count(self, pieces: Sequence[Piece]) -> int:
        """Return the sum of their outcomes' counts, without running the model."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Runs a model on micro-batches. `picks`: it can compute only the needed logits."""

    picks: bool
    autocast: bool

    def read(self, model: Any, piece: Piece) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probability of each target [n], and whether it was the likeliest [n]."""
        extra: dict[str, Any] = {"logits_to_keep": piece.columns} if self.picks else {}
        if piece.positions is not None:
            extra["position_ids"] = piece.positions
        with torch.autocast(piece.ids.device.type, torch.bfloat16, enabled=self.autocast):
            logits = model(input_ids=piece.ids, use_cache=False, **extra).logits
        if not self.picks:
            logits = logits[:, piece.columns]
        logits = logits.flatten(0, 1).index_select(0, piece.places).float()
        said = -functional.cross_entropy(logits, piece.targets, reduction="none")
        return said, logits.detach().argmax(-1) == piece.targets


@dataclass(frozen=True, slots=True)
class Supervised:
    """Cross entropy in nats, each learned token counting the same."""

    reader: Reader

    def __call__(self, model: Any, piece: Piece) -> Outcome:
        """Return the tokens' loss, and how many were the likeliest."""
        said, is_right = self.reader.read(model, piece)
        return Outcome(-said.sum(), is_right.sum(), len(piece.targets))

    def count(self, pieces: Sequence[Piece]) -> int:
        """Return the learned tokens."""
        return sum(len(piece.targets) for piece in pieces)


@dataclass(frozen=True, slots=True)
class Preference:
    """DPO, on pieces that have their references."""

    reader: Reader
    beta: float

    def __call__(self, model: Any, piece: Piece) -> Outcome:
        """Return the pairs' loss, and how many prefer as they shall, more than the reference does."""
        assert piece.references is not None, "they were asked before"
        margins = preferences(self.reader, model, piece) - piece.references
        return Outcome(
            -functional.logsigmoid(self.beta * margins).sum(), (margins > 0).sum(), len(margins)
        )

    def count(self, pieces: Sequence[Piece]) -> int:
        """Return the pairs."""
        return sum(len(piece.members) for piece in pieces)


def preferences(reader: Reader, model: Any, piece: Piece) -> torch.Tensor:
    """Return for each pair how much likelier the model finds the preferred answer (in nats) [pairs]."""
    said, _ = reader.read(model, piece)
    sums = said.new_zeros(piece.rows).index_add(0, piece.owners, said)
    return sums[0::2] - sums[1::2]


@torch.no_grad()
def ask_reference(reader: Reader, model: Any, cutter: Cutter, device: torch.device) -> None:
    """Give a file's examples their references: what the model, as it is now, prefers."""
    references = torch.zeros(len(cutter.examples))
    model.eval()
    for piece in cutter.all_pieces():
        references[piece.members] = preferences(reader, model, piece.to(device)).float().cpu()
    cutter.references = references

"""Sampling of the next token of each row: greedy or random, reproducible by seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunewarden.ids import random_bytes

# Below this temperature sampling equals greedy decoding, and the division overflows.
GREEDY_BELOW = 1e-5
DRAWS_AT_ONCE = 64
SEED_MASK = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters. `top_logprobs` is the number of alternatives to report, None for no logprobs."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A token; if requested, with its logprob (natural log) and the most likely ones, best first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Chooser:
    """The sampling state of one row: parameters, random generator, and previous tokens."""

    def __init__(self, sampling: Sampling, index: int) -> None:
        self.sampling = sampling
        self.is_greedy = sampling.temperature < GREEDY_BELOW
        self.adjusts = bool(
            sampling.logit_bias or sampling.presence_penalty or sampling.frequency_penalty
        )
        self._said: set[int] = set()
        # [vocabulary], float32: biases minus penalties. Cached, so that a step's cost does not depend on
        # the length of the completion and of the list of biases.
        self._adjustment: torch.Tensor | None = None
        self._draws: list[float] = []
        seed = int.from_bytes(random_bytes(8), "big") if sampling.seed is None else sampling.seed
        self._generator = torch.Generator().manual_seed((seed + index) & SEED_MASK)

    def adjust(self, logits: torch.Tensor) -> None:
        """Apply biases and penalties to one row's logits [vocabulary], in place."""
        if self._adjustment is None:
            self._adjustment = torch.zeros_like(logits)
            if self.sampling.logit_bias:
                tokens, biases = zip(*self.sampling.logit_bias, strict=True)
                self._adjustment[list(tokens)] = torch.tensor(biases, dtype=logits.dtype)
        logits += self._adjustment

    def draw(self) -> float:
        """Return the row's next number in [0, 1)."""
        if not self._draws:
            self._draws = torch.rand(DRAWS_AT_ONCE, generator=self._generator).tolist()
        return self._draws.pop()

    def note(self, token: int) -> None:
        """Record a chosen token for the penalties."""
        if self._adjustment is None:
            return
        penalty = self.sampling.frequency_penalty
        if token not in self._said:
            self._said.add(token)
            penalty += self.sampling.presence_penalty
        if penalty:
            self._adjustment[token] -= penalty


def choose(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[Choice]:
    """Return the next token of each row. `logits`: [rows, vocabulary], left as it is."""
    adjusted = logits
    if any(chooser.adjusts for chooser in choosers):
        adjusted = logits.clone()
        for row, chooser in enumerate(choosers):
            if chooser.adjusts:
                chooser.adjust(adjusted[row])
    tokens: list[int] = adjusted.argmax(-1).tolist()
    drawing = [row for row, chooser in enumerate(choosers) if not chooser.is_greedy]
    if drawing:
        drawn = _draw(adjusted[drawing], [choosers[row] for row in drawing])
        for row, token in zip(drawing, drawn, strict=True):
            tokens[row] = token
    choices = []
    for row, (chooser, token) in enumerate(zip(choosers, tokens, strict=True)):
        chooser.note(token)
        asked = chooser.sampling.top_logprobs
        choices.append(Choice(token) if asked is None else _reported(logits[row], token, asked))
    return choices


def _draw(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """Sample by inverting the cumulative distribution, truncated at top_p. [rows, vocabulary]."""
    temperatures = torch.tensor([[chooser.sampling.temperature] for chooser in choosers])
    shares = torch.softmax(logits.double() / temperatures, -1)
    order: torch.Tensor | None = None
    if any(chooser.sampling.top_p < 1 for chooser in choosers):
        shares, order = shares.sort(-1, descending=True)
        bounds = torch.tensor([[chooser.sampling.top_p] for chooser in choosers])
        before = shares.cumsum(-1) - shares
        before[:, 0] = -1.0  # the most likely token always stays, even with top_p 0
        shares = shares.masked_fill(before >= bounds, 0.0)
    reached = shares.cumsum(-1)
    draws = torch.tensor([[chooser.draw()] for chooser in choosers], dtype=torch.float64)
    picked = torch.searchsorted(reached, draws * reached[:, -1:], right=True)
    picked = picked.clamp(max=logits.shape[-1] - 1)
    if order is not None:
        picked = order.gather(-1, picked)
    tokens: list[int] = picked.squeeze(-1).tolist()
    return tokens


def _reported(logits: torch.Tensor, token: int, alternatives: int) -> Choice:
    """Return a choice with the model's log probabilities, before temperature and biases."""
    logprobs = torch.log_softmax(logits.float(), -1)
    best = logprobs.topk(alternatives) if alternatives else None
    top = (
        () if best is None else tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    )
    return Choice(token, float(logprobs[token]), top)

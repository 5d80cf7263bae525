"""One training loop for the demo's base and its adapters: plain torch, next-token loss, AdamW."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100  # torch's cross entropy leaves these targets out
GRADIENT_NORM_MAX = 1.0
POOL = 6000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage is. `loss` is the mean over the last batch, in nats a token."""

    stage: str
    step: int
    steps: int
    loss: float


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and, for each, whether the model must learn to say it."""

    ids: list[int]
    learned: list[bool]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train. The rate warms up over a twentieth, then falls as a cosine."""

    stage: str
    steps: int
    rows: int
    learning_rate: float
    seed: int

    def rate(self, step: int) -> float:
        """Return the learning rate for a step counted from 0."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def train(
    model: Any,
    parameters: Iterable[torch.nn.Parameter],
    examples: Sequence[Example],
    schedule: Schedule,
    report: Report,
) -> None:
    """Train `parameters` in place on batches drawn from `examples`; the seed decides the order."""
    trained = list(parameters)
    optimizer = torch.optim.AdamW(
        trained, lr=schedule.learning_rate, betas=(0.9, 0.95), foreach=True
    )
    generator = torch.Generator().manual_seed(schedule.seed)
    model.train()
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        ids, labels = _batch(_alike(examples, schedule.rows, generator))
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, GRADIENT_NORM_MAX)
        optimizer.step()
        report(Progress(schedule.stage, step + 1, schedule.steps, round(float(loss.detach()), 4)))
    model.eval()


def _alike(examples: Sequence[Example], rows: int, generator: torch.Generator) -> list[Example]:
    """Draw four times the rows and keep a run of like length, so that little is spent on padding."""
    drawn = torch.randint(len(examples), (4 * rows,), generator=generator).tolist()
    ordered = sorted((examples[index] for index in drawn), key=lambda example: len(example.ids))
    start = int(torch.randint(3 * rows + 1, (1,), generator=generator).item())
    return ordered[start : start + rows]


def _batch(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels, each [rows, longest], padded on the right.

    No mask is needed: attention is causal, so no token sees the padding behind it.
    """
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        labels[row, :length] = torch.where(
            torch.tensor(example.learned), ids[row, :length], torch.tensor(IGNORED)
        )
    return ids, labels

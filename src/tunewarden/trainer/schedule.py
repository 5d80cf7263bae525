"""Resolves "auto" hyperparameters, and the learning rate schedule.

- `n_epochs`: 3; more for small data, so that at least 500 examples are seen in all (150 pairs for DPO,
  which overdoes it soon), and fewer for large data, so that at most 25,000 are; within 1 to 25.
- `batch_size`: 0.2 % of the examples as OpenAI does, but up to 8 for small data where that leaves at
  least 12 steps per epoch: a step of one example is mostly overhead, and noise.
- `learning_rate_multiplier`: 1. The rate that it multiplies depends on the size of the base: 2e-4 from a
  billion parameters on (what LoRA is commonly trained with), more for smaller ones, as a power law
  that gives 2.5e-3 for four million. DPO takes a fifth of it.
- `beta`: 0.1.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

from tunewarden.trainer.messages import Auto, Hyperparameters, Method

EPOCHS = 3
EPOCHS_MAX = 25
EXAMPLES_SEEN_MIN: dict[Method, int] = {"supervised": 500, "dpo": 150}
EXAMPLES_SEEN_MAX = 25_000
BATCH_SHARE = 0.002
BATCH_SMALL = 8
BATCH_MAX = 256
STEPS_AN_EPOCH_MIN = 12
BETA = 0.1
RATE_LARGE, PARAMETERS_LARGE = 2e-4, 1_000_000_000
RATE_SMALL, PARAMETERS_SMALL = 2.5e-3, 4_000_000
DPO_SHARE = 0.2
WARM_SHARE = 0.05
RATE_LAST_SHARE = 0.05


Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Schedule:
    """All numbers of a run. `learning_rate` is the highest; `beta` is None for supervised."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None
    learning_rate: float
    steps_an_epoch: int

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        return self.n_epochs * self.steps_an_epoch

    def share(self, step: int) -> float:
        """Return the part of the learning rate for a step counted from 0: it warms up, then falls."""
        warm = max(1, round(WARM_SHARE * self.steps))
        if step < warm:
            return (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, self.steps - warm))
        return RATE_LAST_SHARE + (1 - RATE_LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * done))


def schedule(asked: Hyperparameters, method: Method, *, examples: int, parameters: int) -> Schedule:
    """Resolve every "auto" for so many examples and a base of so many parameters."""
    batch_size = min(_given(asked.batch_size, _batch_size(examples)), examples)
    multiplier = _given(asked.learning_rate_multiplier, 1.0)
    share = DPO_SHARE if method == "dpo" else 1.0
    return Schedule(
        n_epochs=_given(asked.n_epochs, _epochs(examples, method)),
        batch_size=batch_size,
        learning_rate_multiplier=multiplier,
        beta=_given(asked.beta, BETA) if method == "dpo" else None,
        learning_rate=share * multiplier * _rate(parameters),
        steps_an_epoch=math.ceil(examples / batch_size),
    )


def _given(value: Number | Auto, otherwise: Number) -> Number:
    return otherwise if isinstance(value, str) else value


def _epochs(examples: int, method: Method) -> int:
    if examples * EPOCHS < EXAMPLES_SEEN_MIN[method]:
        return min(EPOCHS_MAX, math.ceil(EXAMPLES_SEEN_MIN[method] / examples))
    if examples * EPOCHS > EXAMPLES_SEEN_MAX:
        return max(1, EXAMPLES_SEEN_MAX // examples)
    return EPOCHS


def _batch_size(examples: int) -> int:
    small = max(1, min(BATCH_SMALL, examples // STEPS_AN_EPOCH_MIN))
    return min(BATCH_MAX, max(small, round(BATCH_SHARE * examples)))


def _rate(parameters: int) -> float:
    slope = math.log(RATE_SMALL / RATE_LARGE) / math.log(PARAMETERS_LARGE / PARAMETERS_SMALL)
    rate: float = RATE_LARGE * (PARAMETERS_LARGE / max(1, parameters)) ** slope
    return min(RATE_SMALL, max(RATE_LARGE, rate))

"""Medians, and ratios of two sides that were measured in the same rounds."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios, and between which values it lies with 95 % confidence."""

    value: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{shown(self.value)} ({shown(self.low)} to {shown(self.high)})"


def ratio(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Ratio | None:
    """Compare round by round; a round in which a side is None does not count."""
    pairs = zip(ours, theirs, strict=True)
    found = [one / other for one, other in pairs if one is not None and other]
    if not found:
        return None
    low, high = bootstrap(found)
    return Ratio(statistics.median(found), low, high, len(found))


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """Between what the median lies, from medians of resampled rounds."""
    numbers = random.Random(0)
    medians = sorted(
        statistics.median(numbers.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    tail = (1 - CONFIDENCE) / 2
    return medians[int(RESAMPLES * tail)], medians[int(RESAMPLES * (1 - tail)) - 1]


def shown(number: float) -> str:
    """Three digits that matter."""
    if number >= 100:
        return f"{number:,.0f}"
    if number >= 0.1:
        return f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    return f"{number:.2g}"

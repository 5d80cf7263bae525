"""The samples of a run: which rounds count, and each one's value."""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.peers.requests import Scenario
from benchmarks.peers.sampling import DISTURBED

# With fewer quiet rounds than this, the others count too, and the row says so.
QUIET_ROUNDS_MIN = 3

Found = dict[str, Any]


def counted_rounds(found: Found, scenario: Scenario, name: str) -> tuple[list[Found | None], bool]:
    """Return a sample a round, None for one that does not count; and whether disturbed ones count."""
    rounds: list[Found | None] = found["samples"].get(f"{scenario.name}/{name}", [])
    undisturbed = [one if one and one["disturbance"] < DISTURBED else None for one in rounds]
    if sum(one is not None for one in undisturbed) < min(QUIET_ROUNDS_MIN, len(rounds)):
        return rounds, True
    return undisturbed, False


def quiet(found: Found, scenario: Scenario, name: str) -> str:
    rounds = found["samples"][f"{scenario.name}/{name}"]
    count = sum(1 for one in rounds if one and one["disturbance"] < DISTURBED)
    return f"{count} of {len(rounds)}"


def value_of(sample: Found | None, scenario: Scenario) -> float | None:
    if sample is None or has_failed(sample):
        return None
    value: float = sample[scenario.field]
    return value


def has_failed(sample: Found) -> bool:
    return bool(sample["failures"]) or not sample["rate"]


def best_first(scenario: Scenario) -> Callable[[tuple[str, list[Found | None]]], float]:
    """Sort the best first."""
    sign = 1 if scenario.field == "p50" else -1

    def key(measured: tuple[str, list[Found | None]]) -> float:
        values = [value for one in measured[1] if (value := value_of(one, scenario)) is not None]
        return sign * statistics.median(values) if values else float("inf")

    return key

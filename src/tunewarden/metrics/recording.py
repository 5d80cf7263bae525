"""Counting: what processes write into their slots, and how a scrape reads it.

A process has one slot, as it has one log: `join` sets it where the process starts, and until then, in commands and
tests, it is one that nobody reads.

An inference request is one block for all that is counted of it, because a look-up costs as much as counting: see
`Inference`. Other records are a histogram's integers (`_histogram`), or one integer.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tunewarden.metrics import families
from tunewarden.metrics.families import Family
from tunewarden.metrics.memory import Key, Memory, Slot

MICROS: Final = 1_000_000
# Names of records that are more than one family.
INFERENCE: Final = "inference"
HTTP: Final = "http"

# Where the parts of an inference request's block begin. A histogram has a bucket more than bounds, and a sum.
_BOUNDS: Final = families.DURATION.bounds
_SUM: Final = len(_BOUNDS) + 1
_FIRST: Final = _SUM + 1
_PER_TOKEN: Final = _FIRST + len(families.FIRST_TOKEN.bounds) + 2
_INPUT: Final = _PER_TOKEN + len(families.OUTPUT_TOKEN.bounds) + 2
_OUTPUT: Final = _INPUT + 1
_SIZE: Final = _OUTPUT + 1


class _Process:
    """The slot of this process."""

    slot: Slot | None = None


def join(descriptor: int, number: int) -> None:
    """Count in this slot of the server's memory from now on."""
    _Process.slot = Memory(descriptor).slot(number)
    _Process.slot.reset(families.OF_A_PROCESS)


def own() -> Slot:
    """Return the slot of this process."""
    if _Process.slot is None:
        _Process.slot = Slot.private()
    return _Process.slot


class Inference:
    """Counts inference requests; on the event loop only. On the hot path: hence positions, and one block a request."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._integers = slot.integers
        # By route, base, status and error.
        self._blocks: dict[tuple[str, str, int, str], int] = {}

    def ended(
        self,
        what: tuple[str, str, int, str],
        seconds: float,
        tokens: tuple[int, ...],
    ) -> int:
        """Count a request that ended; `what` is its route, base, status and error. Return its block, for `streamed`."""
        at = self._blocks.get(what)
        if at is None:
            route, base, status, error = what
            at = self._slot.block((INFERENCE, route, base, str(status), error), _SIZE)
            self._blocks[what] = at
        integers = self._integers
        integers[at + bisect_left(_BOUNDS, seconds)] += 1
        integers[at + _SUM] += int(seconds * MICROS)
        integers[at + _INPUT] += tokens[0]
        integers[at + _OUTPUT] += tokens[1]
        return at

    def streamed(self, at: int, seconds: float, first_seconds: float, output_tokens: int) -> None:
        """Count of a stream when its first event was, and the time of its other tokens."""
        integers = self._integers
        integers[at + _FIRST + bisect_left(families.FIRST_TOKEN.bounds, first_seconds)] += 1
        integers[at + _PER_TOKEN - 1] += int(first_seconds * MICROS)
        if output_tokens > 1:
            each = (seconds - first_seconds) / (output_tokens - 1)
            integers[at + _PER_TOKEN + bisect_left(families.OUTPUT_TOKEN.bounds, each)] += 1
            integers[at + _INPUT - 1] += int(each * MICROS)


def inference_parts(block: list[int]) -> tuple[list[int], list[int], list[int], tuple[int, int]]:
    """Return the histograms of an inference block, of DURATION, FIRST_TOKEN and OUTPUT_TOKEN, and its tokens."""
    tokens = block[_INPUT], block[_OUTPUT]
    return block[:_FIRST], block[_FIRST:_PER_TOKEN], block[_PER_TOKEN:_INPUT], tokens


def http_ended(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request that was no inference."""
    _observe((HTTP, method, route, str(status)), families.REQUEST_DURATION, seconds)


def observe(family: Family, seconds: float, *labels: str) -> None:
    """Count an observation of a histogram. Thread-safe."""
    _observe((family.name, *labels), family, seconds)


def count(family: Family, *labels: str, by: int = 1) -> None:
    """Add to a counter. Thread-safe."""
    own().add((family.name, *labels), by)


def show(family: Family, value: int, *labels: str) -> None:
    """Set a gauge of this process; a scrape sums those of all."""
    own().set((family.name, *labels), value)


@contextmanager
def timed(family: Family, *labels: str) -> Iterator[None]:
    """Observe the time of a block that ends well."""
    began = time.perf_counter()
    yield
    observe(family, time.perf_counter() - began, *labels)


def _observe(key: Key, family: Family, seconds: float) -> None:
    slot = own()
    at = slot.block(key, len(family.bounds) + 2)
    with slot.lock:
        slot.integers[at + bisect_left(family.bounds, seconds)] += 1
        slot.integers[at + len(family.bounds) + 1] += int(seconds * MICROS)

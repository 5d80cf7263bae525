"""The two forms of a long test: a short one for CI, and all of it.

`TUNEWARDEN_TORTURE=1` asks for all; `TUNEWARDEN_SEED=n` replays what a test has printed.
"""

import os
import random
from typing import TypeVar

T = TypeVar("T")


def is_long() -> bool:
    """Tell whether everything is to be tried."""
    return os.environ.get("TUNEWARDEN_TORTURE") == "1"


def replayed_seed() -> int | None:
    """Return the seed that is to be replayed, if one is."""
    text = os.environ.get("TUNEWARDEN_SEED")
    return int(text) if text else None


def new_seed() -> int:
    """Return the seed to use: a given one, or a fresh one. Print it."""
    given = replayed_seed()
    return random.SystemRandom().randrange(2**32) if given is None else given


def count(short: int, long: int) -> int:
    """Return how many to try."""
    return long if is_long() else short


def sampled(items: list[T], most: int, seed: int) -> list[T]:
    """Return all items in the long form, else `most` of them as the seed chooses."""
    if is_long() or len(items) <= most:
        return items
    return random.Random(seed).sample(items, most)

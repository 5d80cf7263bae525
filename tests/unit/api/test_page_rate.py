"""The bound on what anybody may ask without a key."""

from tests.fakes.clock import HandClock

from tunewarden.api import page_rate
from tunewarden.api.page_rate import PageRate
from tunewarden.errors import Error


def admitted(rate: PageRate, clock: HandClock, *, count: int, seconds: float) -> int:
    """Return how many of so many requests, spread over so many seconds, are admitted."""
    found = 0
    for _ in range(count):
        clock.sleep(seconds / count)
        try:
            rate.take(clock)
        except Error:
            continue
        found += 1
    return found


def test_guesses_of_keys_are_few() -> None:
    rate, clock = page_rate.of_wrong_keys(), HandClock()
    assert admitted(rate, clock, count=300, seconds=19) <= 30
    # Who only mistyped is told so again after a while.
    assert admitted(rate, clock, count=1, seconds=2) == 1

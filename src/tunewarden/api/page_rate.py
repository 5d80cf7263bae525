"""A bound on requests without a key for links that do nothing."""

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind

PER_SECOND = 10.0
BURST = 40.0
# Wrong keys, typed or guessed; a right one is not counted, so a guesser keeps nobody out.
WRONG_KEYS_PER_SECOND = 0.5
WRONG_KEYS_BURST = 20.0


def of_wrong_keys() -> "PageRate":
    """Return the bound on keys that sign nobody in, from wherever they come."""
    return PageRate(WRONG_KEYS_PER_SECOND, WRONG_KEYS_BURST)


class PageRate:
    """A token bucket of one worker: `burst` requests at once, then `per_second`."""

    def __init__(self, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def take(self, clock: Clock) -> None:
        """Count one request. Raises Error(RATE_LIMITED)."""
        now = clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            raise Error(
                Kind.RATE_LIMITED,
                "Too many requests for this page. Try again in a moment.",
                retry_after_seconds=max(1, round(1 / self._per_second)),
            )
        self._left -= 1

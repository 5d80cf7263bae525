"""A bound on requests without a key for links that do nothing."""

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind

PER_SECOND = 10.0
BURST = 40.0


class PageRate:
    """A token bucket of one worker: BURST requests at once, then PER_SECOND."""

    def __init__(self) -> None:
        self._left = BURST
        self._at = 0.0

    def take(self, clock: Clock) -> None:
        """Count one request. Raises Error(RATE_LIMITED)."""
        now = clock.monotonic()
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 1:
            raise Error(
                Kind.RATE_LIMITED,
                "Too many requests for this page. Try again in a moment.",
                retry_after_seconds=1,
            )
        self._left -= 1

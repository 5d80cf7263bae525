"""Retries with back-off: Retry-After if the source sends it, else exponential, up to a limit."""

import re
from collections.abc import Callable, Mapping
from threading import Lock

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind

# An exhausted quota is a 429 too, but waiting does not help.
USED_UP = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
FIRST_SECONDS = 1.0
INTERVAL_SECONDS_MAX = 30.0
# Attempts without Retry-After: about half a minute.
ATTEMPTS_MAX = 6
# Attempts with Retry-After, however short.
ASKED_ATTEMPTS_MAX = 100
# Total wait of one request.
PATIENCE_SECONDS = 3600.0
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Pauses:
    """The rate limit shared by all requests to one source: when it asks for a pause, all of them wait."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        self.clock = clock
        self._say = say
        self._guard = Lock()
        self._until = clock.monotonic()

    def wait(self) -> None:
        """Return when the pause that the source has asked for last is over."""
        while (left := self._until - self.clock.monotonic()) > 0:
            self.clock.sleep(left)

    def ask(self, seconds: float, why: str) -> None:
        """Make every request wait for this long, and report it."""
        until = self.clock.monotonic() + seconds
        with self._guard:
            is_news = until > self._until + 1
            self._until = max(self._until, until)
        if is_news:
            self._say(f"{why}; waiting {seconds:.0f} s.")


class Patience:
    """The retry budget of one request."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._attempts = 0
        self._waited = 0.0

    def wait(self, why: str, asked_seconds: float | None = None) -> None:
        """Wait before a retry. Raises Error(UNAVAILABLE) after the last attempt."""
        self._attempts += 1
        seconds = asked_seconds
        if seconds is None:
            seconds = min(FIRST_SECONDS * 2 ** (self._attempts - 1), INTERVAL_SECONDS_MAX)
        most = ATTEMPTS_MAX if asked_seconds is None else ASKED_ATTEMPTS_MAX
        is_enough = self._attempts >= most
        if is_enough or self._waited + seconds > PATIENCE_SECONDS:
            raise Error(
                Kind.UNAVAILABLE,
                f"{why}. What is done is kept: run the command again to go on.",
                retry_after_seconds=asked_seconds,
            )
        self._waited += seconds
        self._pauses.ask(seconds, why)
        self._pauses.wait()


def asked_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the wait that a response asks for; None if it has none. Header names are in lower case."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue  # a date, say, which depends on two clocks
    resets = (headers.get(f"x-ratelimit-reset-{what}", "") for what in ("requests", "tokens"))
    found = [seconds for text in resets if (seconds := _duration(text)) is not None]
    return max(found, default=None)


def _duration(text: str) -> float | None:
    """Parse a duration such as `6m0s`; None if it is not one."""
    pieces = DURATION.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        return None
    return sum(float(number) * UNIT_SECONDS[unit] for number, unit in pieces)

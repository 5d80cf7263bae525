"""Retries with back-off: Retry-After if the source sends it, else exponential, up to a limit."""

import math
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from threading import Lock

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind

# An exhausted quota is a 429 too, but waiting does not help.
USED_UP = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
RATE_LIMITED = 429
FIRST_SECONDS = 1.0
INTERVAL_SECONDS_MAX = 30.0
# Who is asked to wait for almost nothing, again and again, waits longer each time, up to a second.
ASKED_FIRST_SECONDS = 0.01
# How soon a wait ends after `stop`.
SLICE_SECONDS = 0.2
# Attempts without Retry-After: about half a minute.
ATTEMPTS_MAX = 6
# Attempts with Retry-After, however short.
ASKED_ATTEMPTS_MAX = 100
# Total wait of one request.
PATIENCE_SECONDS = 3600.0
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DATED = "retry-after"


def is_retried(status: int) -> bool:
    """Return whether a request with this response may succeed later."""
    return status in {408, RATE_LIMITED} or status >= 500


class Pauses:
    """The rate limit shared by all requests to one source: when it asks for a pause, all of them wait."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        self.clock = clock
        self._say = say
        self._guard = Lock()
        self._until = clock.monotonic()
        self._is_stopped = False

    def wait(self) -> None:
        """Return when the pause that the source has asked for last is over. Raises Error(UNAVAILABLE) after `stop`."""
        while not self._is_stopped and (left := self._until - self.clock.monotonic()) > 0:
            self.clock.sleep(min(left, SLICE_SECONDS))
        if self._is_stopped:
            raise Error(Kind.UNAVAILABLE, "The command is ending.")

    def stop(self) -> None:
        """End all waits, for good: no request begins or is tried again."""
        self._is_stopped = True

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
        self._asked_attempts = 0
        self._waited = 0.0

    def wait(self, why: str, asked_seconds: float | None = None) -> None:
        """Wait before a retry. Raises Error(UNAVAILABLE) after the last attempt."""
        if asked_seconds is None:
            self._attempts += 1
            seconds = min(FIRST_SECONDS * 2 ** (self._attempts - 1), INTERVAL_SECONDS_MAX)
        else:
            self._asked_attempts += 1
            seconds = max(asked_seconds, self._shortest())
        is_enough = self._attempts >= ATTEMPTS_MAX or self._asked_attempts >= ASKED_ATTEMPTS_MAX
        is_too_long = self._waited + seconds > PATIENCE_SECONDS
        if is_enough or is_too_long:
            asks = f" and asks to wait for {seconds:.0f} s" if is_too_long else ""
            raise Error(
                Kind.UNAVAILABLE,
                f"{why}{asks}. What is done is kept: run the command again to go on.",
                retry_after_seconds=asked_seconds,
            )
        self._waited += seconds
        self._pauses.ask(seconds, why)
        self._pauses.wait()

    def _shortest(self) -> float:
        doubled: float = ASKED_FIRST_SECONDS * 2 ** (self._asked_attempts - 1)
        return min(doubled, FIRST_SECONDS)


def asked_seconds(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the wait that a response asks for; None if it has none. Header names are in lower case."""
    for name, unit in (("retry-after-ms", 0.001), (DATED, 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    if DATED in headers and (left := _until_date(headers)) is not None:
        return left
    if status != RATE_LIMITED:
        return None  # Whatever is wrong, it is no limit that is reset.
    resets = (headers.get(f"x-ratelimit-reset-{what}", "") for what in ("requests", "tokens"))
    found = [one for text in resets if (one := _duration(text)) is not None]
    return max(found, default=None)


def _until_date(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a Retry-After that is a date, by the source's own clock; None if either is no date."""
    try:
        until, now = (parsedate_to_datetime(headers[name]) for name in (DATED, "date"))
        return max(0.0, (until - now).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None


def _duration(text: str) -> float | None:
    """Parse a duration such as `6m0s`; None if it is not one."""
    pieces = DURATION.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        return None
    return sum(float(number) * UNIT_SECONDS[unit] for number, unit in pieces)

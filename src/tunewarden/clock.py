"""The only source of time, so that tests can control it."""

import time
from datetime import UTC, datetime
from typing import Protocol

THROTTLE_SECONDS = 60.0
THROTTLED_MAX = 1000


class Clock(Protocol):
    """Wall time for records, monotonic time for timeouts, and sleep."""

    def now(self) -> datetime:
        """Return the wall time, aware, UTC."""

    def monotonic(self) -> float:
        """Return monotonic seconds; only differences are meaningful."""

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall time, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since boot, suspend included (CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        time.sleep(seconds)


class Throttle:
    """Rate limit of repeated log messages: each text at most once per `seconds`."""

    def __init__(self, clock: Clock, seconds: float = THROTTLE_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._due: dict[str, float] = {}

    def allows(self, text: str) -> bool:
        """Return whether a text may be logged now; if so, it is suppressed for a while."""
        now = self._clock.monotonic()
        if self._due.get(text, now) > now:
            return False
        if len(self._due) >= THROTTLED_MAX:
            self._due = {known: due for known, due in self._due.items() if due > now}
        if len(self._due) < THROTTLED_MAX:
            self._due[text] = now + self._seconds
        return True


def to_micros(moment: datetime) -> int:
    """Return microseconds since 1970 UTC: the database's form of every time."""
    return int(moment.timestamp() * 1_000_000)


def from_micros(micros: int) -> datetime:
    """Return the aware UTC time for microseconds since 1970."""
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def iso(moment: datetime) -> str:
    """Return RFC 3339 text in UTC with microseconds: the form of times in receipts."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""A clock that is moved by hand, or by whoever sleeps on it."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 22, 10, tzinfo=UTC)


class HandClock:
    """A `Clock`. Each look at it takes a microsecond, so that two looks never give one time."""

    def __init__(self) -> None:
        self._elapsed = timedelta()

    def now(self) -> datetime:
        self._elapsed += timedelta(microseconds=1)
        return START + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed.total_seconds()

    def sleep(self, seconds: float) -> None:
        # A sleep passes some time, or who waits for the rest of a microsecond would wait for ever.
        self._elapsed += max(timedelta(seconds=seconds), timedelta(microseconds=1))

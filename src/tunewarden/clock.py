"""Time enters here and nowhere else, so that tests can hold and move it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, a clock that only runs forward for bounds, and sleeping."""

    def now(self) -> datetime:
        """Return the wall time, aware, UTC."""

    def monotonic(self) -> float:
        """Return seconds that never run backward; only differences mean anything."""

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


def to_micros(moment: datetime) -> int:
    """Return microseconds since 1970 UTC: the form in which the database keeps every time."""
    return int(moment.timestamp() * 1_000_000)


def from_micros(micros: int) -> datetime:
    """Return the aware UTC time for microseconds since 1970."""
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def iso(moment: datetime) -> str:
    """Return RFC 3339 text in UTC with microseconds: the form in which receipts carry times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""What every clock does: the machine's, and the one that is moved by hand."""

from datetime import timedelta

import pytest
from tests.fakes.clock import HandClock

from tunewarden.clock import Clock, SystemClock


@pytest.fixture(params=["system", "hand"])
def clock(request: pytest.FixtureRequest) -> Clock:
    return SystemClock() if request.param == "system" else HandClock()


def test_its_time_is_utc_and_says_so(clock: Clock) -> None:
    assert clock.now().utcoffset() == timedelta(0)


def test_its_seconds_never_run_back(clock: Clock) -> None:
    seen = [clock.monotonic() for _ in range(100)]
    assert seen == sorted(seen)


def test_who_sleeps_wakes_when_so_many_seconds_are_over(clock: Clock) -> None:
    began, began_at = clock.monotonic(), clock.now()
    clock.sleep(0.02)
    assert clock.monotonic() - began >= 0.02 - 1e-6
    assert clock.now() > began_at

"""How long constraints may keep everybody's next token waiting (docs/decisions/0032).

Masks are computed between two steps of the batch. A row has some time for each of its tokens; what it takes beyond comes
out of a budget of its organization, which fills slowly, so that no number of requests takes more.
"""

import time
from collections.abc import Sequence
from itertools import pairwise

from tunewarden.clock import Clock

# A usual schema takes a tenth or a fifth of it.
SECONDS_A_TOKEN = 0.00025
# What a row may save up, for masks that take longer than most.
SAVED_SECONDS = 0.01
BUDGET_SECONDS = 1.0
BUDGET_SECONDS_A_SECOND = 0.02
BUDGETS_MAX = 1024


class Budget:
    """An organization's, in seconds of processor time. Used by the step thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = BUDGET_SECONDS
        self._at = clock.monotonic()

    def spend(self, seconds: float) -> bool:
        """Return whether so much was left."""
        self._fill()
        if seconds > self._left:
            return False
        self._left -= seconds
        return True

    @property
    def is_full(self) -> bool:
        """Return whether it is as a new one."""
        self._fill()
        return self._left == BUDGET_SECONDS

    def _fill(self) -> None:
        now = self._clock.monotonic()
        self._left = min(BUDGET_SECONDS, self._left + (now - self._at) * BUDGET_SECONDS_A_SECOND)
        self._at = now


class Budgets:
    """Those of a base's organizations."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._budgets: dict[str, Budget] = {}

    def of(self, organization: str) -> Budget:
        """Return an organization's. Thread-safe."""
        if len(self._budgets) > BUDGETS_MAX:
            full = [name for name, budget in list(self._budgets.items()) if budget.is_full]
            for name in full:
                self._budgets.pop(name, None)
        return self._budgets.setdefault(organization, Budget(self._clock))


class RowTime:
    """What one row has taken and may take."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._saved = 0.0

    def spend(self, seconds: float) -> bool:
        """Count what one token took; return whether the row may go on."""
        self._saved = min(self._saved + SECONDS_A_TOKEN - seconds, SAVED_SECONDS)
        if self._saved >= 0:
            return True
        beyond, self._saved = -self._saved, 0.0
        return self.budget.spend(beyond)


class Stopwatch:
    """Shares the processor time of several rows' work among them.

    The processor's time is asked for twice in all, because that is a system call. The time of day, which is none, says
    who took how much of it; what else the machine does lengthens a row's share, but not what all have together.
    """

    def __init__(self) -> None:
        self._began = time.thread_time()
        self._laps = [time.perf_counter()]

    def lap(self) -> None:
        """End a row's work."""
        self._laps.append(time.perf_counter())

    def shares(self) -> Sequence[float]:
        """Return the seconds of processor time of each."""
        worked = time.thread_time() - self._began
        rows = len(self._laps) - 1
        if worked < rows * SECONDS_A_TOKEN / 4:  # as nearly always: nobody took long
            return [worked / rows] * rows
        passed = self._laps[-1] - self._laps[0]
        share = min(1.0, worked / passed)
        return [share * (after - before) for before, after in pairwise(self._laps)]

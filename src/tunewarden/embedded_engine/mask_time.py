"""How long constraints may keep everybody's next token waiting (docs/decisions/0032).

Masks are computed between two steps of the batch. The time that others wait for them comes out of a budget of their
organization, which fills as time passes, so that no number of requests takes more than a share of it, however busy the
machine is. When it is empty, the rows end that take long by processor time; those that take little go on.
"""

import time
from collections.abc import Sequence
from itertools import pairwise

from tunewarden.clock import Clock

# What a row may always take, in processor time; a schema on the demo's base took a third of it (18 µs). And more for each
# token of the vocabulary, since masks take longer with it, as a step does: 0.43 ms with Qwen's 152,000.
SECONDS_A_TOKEN = 0.00005
SECONDS_A_TOKEN_KNOWN = 2.5e-9
# What a row may save up, for masks that take longer than most.
SAVED_SECONDS = 0.01
BUDGET_SECONDS = 0.5
BUDGET_SECONDS_A_SECOND = 0.2
BUDGETS_MAX = 1024


class Budget:
    """An organization's, in seconds that others wait. Used by the step thread only.

    `seconds_a_token` is what each of its rows may take beside it.
    """

    def __init__(self, clock: Clock, seconds_a_token: float) -> None:
        self.seconds_a_token = seconds_a_token
        self._clock = clock
        self._left = BUDGET_SECONDS
        self._at = clock.monotonic()

    def spend(self, seconds: float) -> bool:
        """Return whether so much was left."""
        self._fill()
        was_left = seconds <= self._left
        self._left = max(0.0, self._left - seconds)
        return was_left

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
    """Those of the organizations of a base, whose vocabulary has so many tokens."""

    def __init__(self, clock: Clock, vocabulary: int) -> None:
        self._clock = clock
        self._seconds_a_token = SECONDS_A_TOKEN + vocabulary * SECONDS_A_TOKEN_KNOWN
        self._budgets: dict[str, Budget] = {}

    def of(self, organization: str) -> Budget:
        """Return an organization's. Thread-safe."""
        if len(self._budgets) > BUDGETS_MAX:
            full = [name for name, budget in list(self._budgets.items()) if budget.is_full]
            for name in full:
                self._budgets.pop(name, None)
        new = Budget(self._clock, self._seconds_a_token)
        return self._budgets.setdefault(organization, new)


class RowTime:
    """What one row has taken and may take."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._saved = 0.0

    def spend(self, worked: float, waited: float) -> bool:
        """Count what one token took in processor time, and how long others waited; return whether the row may go on."""
        self._saved = min(self._saved + self.budget.seconds_a_token - worked, SAVED_SECONDS)
        is_short = self._saved >= 0
        self._saved = max(0.0, self._saved)
        return self.budget.spend(waited) or is_short


class Stopwatch:
    """Shares the time of several rows' work among them.

    The processor's time is asked for twice in all, because that is a system call. The time of day, which is none, says
    who took how much of it; what else the machine does lengthens a row's share, but not what all have together.
    """

    def __init__(self) -> None:
        self._began = time.thread_time()
        self._laps = [time.perf_counter()]

    def lap(self) -> None:
        """End a row's work."""
        self._laps.append(time.perf_counter())

    def shares(self) -> Sequence[tuple[float, float]]:
        """Return the seconds of processor time and those that passed, of each."""
        worked = time.thread_time() - self._began
        passed = self._laps[-1] - self._laps[0]
        rows = len(self._laps) - 1
        if worked < rows * SECONDS_A_TOKEN / 2:  # as nearly always: nobody took long
            return [(worked / rows, passed / rows)] * rows
        share = min(1.0, worked / passed)
        laps = [after - before for before, after in pairwise(self._laps)]
        return [(share * lap, lap) for lap in laps]

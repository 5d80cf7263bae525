"""Token buckets that several processes share: against a simple model, over deaths and stopped owners, and when slots end."""

import mmap
import os
import random
import signal
import time
from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tunewarden.token_buckets import buckets as buckets_module
from tunewarden.token_buckets import mutex
from tunewarden.token_buckets.buckets import (
    MINUTE,
    ROUNDING_SECONDS,
    Buckets,
    Limit,
    Meter,
    Metered,
)
from tunewarden.token_buckets.memory import SETS, WAYS, Memory

START = 1_000_000.0


def taken(buckets: Buckets, metered: Metered, tokens: int, now: float) -> bool:
    return buckets.take(metered, tokens, now) is None


def requests(a_minute: int, subject: str = "a") -> tuple[Limit, ...]:
    return (Limit(subject, a_minute, counts_tokens=False),)


def tokens(a_minute: int, subject: str = "a") -> tuple[Limit, ...]:
    return (Limit(subject, a_minute, counts_tokens=True),)


def left(meter: Meter) -> int:
    return int((MINUTE - meter.full_in + ROUNDING_SECONDS) / meter.unit_seconds)


def of(memory: Memory, limits: tuple[Limit, ...]) -> tuple[Buckets, Metered]:
    """The buckets as one more process sees them."""
    buckets = Buckets(Memory(memory.descriptor))
    metered = buckets.metered(limits)
    assert metered is not None
    return buckets, metered


@pytest.fixture
def memory() -> Memory:
    return Memory.create()


class Model:
    """A bucket as one would write it down: how much is in it."""

    def __init__(self, a_minute: int) -> None:
        self.most = self.level = Fraction(a_minute)
        self.rate = Fraction(a_minute, 60)
        self.now = Fraction(START)

    def refill(self, now: float) -> None:
        self.level = min(self.most, self.level + self.rate * (Fraction(now) - self.now))
        self.now = Fraction(now)

    def full_at(self) -> Fraction:
        return self.now + (self.most - self.level) / self.rate


class OneBucketOfThreeProcesses(RuleBasedStateMachine):
    """Requests and tokens of three processes, whose settlements are seen at once, do what the model does."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limit("x", 7, counts_tokens=False), Limit("x", 1000, counts_tokens=True)
        memory = Memory.create()
        self.processes = [of(memory, self.limits) for _ in range(3)]
        self.requests, self.tokens = Model(7), Model(1000)
        self.now = START
        # All that was let through, since the start, less what was given back.
        self.requests_sum, self.tokens_sum = 0, Fraction(0)

    @rule(seconds=st.floats(0, 90))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=running, process=st.integers(0, 2), amount=st.integers(1, 1100))
    def takes(self, process: int, amount: int) -> tuple[int, int, Fraction] | None:
        self.requests.refill(self.now)
        self.tokens.refill(self.now)
        buckets, metered = self.processes[process]
        is_taken = taken(buckets, metered, amount, self.now)
        slack = Fraction(1, 10**3)
        if is_taken:
            assert self.requests.level >= 1 - slack
            assert self.tokens.level >= amount - slack
            self.requests.level -= 1
            self.tokens.level -= amount
            self.requests_sum += 1
            self.tokens_sum += amount
            return process, amount, self.tokens.full_at()
        assert self.requests.level < 1 + slack or self.tokens.level < amount + slack
        return None

    @rule(request=consumes(running), used=st.integers(0, 1200))
    def ends(self, request: tuple[int, int, Fraction] | None, used: int) -> None:
        if request is None:
            return
        process, amount, full_at = request
        buckets, metered = self.processes[process]
        buckets.settle(metered, used - amount, [float(full_at)], self.now)
        buckets.flush(self.now)
        model = self.tokens
        model.refill(self.now)
        more = Fraction(used - amount)
        if more < 0:
            more = -min(-more, max(Fraction(0), model.rate * (full_at - model.now)))
        model.level = min(model.most, model.level - more)
        self.tokens_sum += more

    @invariant()
    def never_more_than_a_full_bucket_and_its_refill(self) -> None:
        seconds = Fraction(self.now - START)
        assert self.requests_sum <= self.requests.most + self.requests.rate * seconds
        left = self.tokens.level
        assert self.tokens_sum <= self.tokens.most + self.tokens.rate * seconds - min(
            left, Fraction(0)
        )


OneBucketOfThreeProcesses.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestOneBucketOfThreeProcesses = OneBucketOfThreeProcesses.TestCase


@pytest.mark.parametrize("a_minute", [1, 3, 7, 60, 997, 1_000_000])
def test_as_many_pass_at_once_as_the_limit_says(memory: Memory, a_minute: int) -> None:
    processes = [of(memory, requests(a_minute)) for _ in range(4)]
    tries = min(a_minute, 2000) + 10
    passed = sum(taken(*processes[n % 4], 0, START) for n in range(tries))
    assert passed == min(a_minute, tries)


def test_a_bucket_of_each_process_alone_is_found_by_this_count() -> None:
    """The control of the test above: it sees four times the limit."""
    processes = [of(Memory.create(), requests(60)) for _ in range(4)]
    assert sum(taken(*processes[n % 4], 0, START) for n in range(400)) == 240


def test_a_short_bucket_takes_nothing_from_the_other(memory: Memory) -> None:
    limits = requests(100) + tokens(1000)
    buckets, metered = of(memory, limits)
    assert taken(buckets, metered, 600, START)
    for _ in range(50):
        short = buckets.take(metered, 600, START)
        assert short is not None
        assert short.counts_tokens
    assert left(metered.of_requests[0]) == 99
    assert left(metered.of_tokens[0]) == 400
    assert short is not None
    assert short.after - MINUTE == pytest.approx(12)


def test_a_lower_limit_counts_what_was_taken_under_the_higher(memory: Memory) -> None:
    first, second = of(memory, requests(60)), of(memory, requests(600))
    assert sum(taken(*first, 0, START) for _ in range(60)) == 60
    assert not taken(*second, 0, START)
    assert taken(*second, 0, START + 0.11)


def test_tokens_that_are_not_used_are_there_for_others_at_once(memory: Memory) -> None:
    (one, metered), (other, seen) = of(memory, tokens(1000)), of(memory, tokens(1000))
    assert taken(one, metered, 900, START)
    one.settle(metered, -800, metered.full_at, START)
    other.take(seen, 0, START)
    assert left(seen.of_tokens[0]) == 900
    one.settle(metered, 50, metered.full_at, START)
    other.take(seen, 0, START)
    assert left(seen.of_tokens[0]) == 850


def test_what_was_taken_ahead_is_given_back_by_a_flush(memory: Memory) -> None:
    limits = requests(50_000) + tokens(5_000_000)
    (one, metered), (other, seen) = of(memory, limits), of(memory, limits)
    assert taken(one, metered, 100, START)
    assert (metered.requests_ahead, metered.tokens_ahead) == (10, 1000)
    one.settle(metered, -60, metered.full_at, START)
    assert metered.tokens_ahead == 1060
    one.flush(START)
    assert (metered.requests_ahead, metered.tokens_ahead) == (0, 0)
    other.take(seen, 0, START)
    assert left(seen.of_requests[0]) == 50_000 - 1 - 1 - 10
    assert left(seen.of_tokens[0]) == 5_000_000 - 40 - 1000


@pytest.mark.parametrize("a_minute", [12_345, 50_000, 1_000_000])
def test_processes_that_take_ahead_let_through_what_the_limit_says(
    memory: Memory, a_minute: int
) -> None:
    """Together never more, and less by no more than what the others hold."""
    processes = [of(memory, requests(a_minute)) for _ in range(4)]
    passed = refused = 0
    numbers = random.Random(7)
    while refused < 50:
        buckets, metered = processes[numbers.choice((0, 0, 0, 1, 2, 3))]
        if taken_on_the_hot_path(buckets, metered):
            passed += 1
            refused = 0
        else:
            refused += 1
    assert passed <= a_minute
    assert passed >= a_minute - 4 * (a_minute // 5_000)


def taken_on_the_hot_path(buckets: Buckets, metered: Metered) -> bool:
    if metered.requests_ahead > 0:
        metered.requests_ahead -= 1
        return True
    return taken(buckets, metered, 0, START)


def test_a_clock_that_lags_or_jumps_back_gives_nothing_away(memory: Memory) -> None:
    one, other = of(memory, requests(60)), of(memory, requests(60))
    assert sum(taken(*one, 0, START) for _ in range(60)) == 60
    assert sum(taken(*other, 0, START - 100) for _ in range(50)) == 0
    assert sum(taken(*one, 0, START + 10) for _ in range(50)) == 10


def test_an_exhausted_limit_keeps_its_slot_while_idle_ones_are_replaced(memory: Memory) -> None:
    buckets, metered = of(memory, requests(5))
    meter = metered.of_requests[0]
    assert sum(taken(buckets, metered, 0, START) for _ in range(9)) == 5
    of_set = meter.number & (SETS - 1)
    for round_number in range(20):
        for n in range(WAYS * 4):
            number = ((1 + round_number * WAYS * 4 + n) * SETS + of_set) or 1
            place = memory.place(number, START)
            memory.full_at[place + 1] = START  # full again: idle
    buckets_again, again = of(memory, requests(5))
    assert not taken(buckets_again, again, 0, START)
    assert not taken(buckets, metered, 0, START)


def test_the_limits_of_100000_keys_fit_and_each_holds(memory: Memory) -> None:
    buckets = Buckets(memory)
    passed = 0
    for n in range(100_000):
        one = buckets.metered(requests(1, f"key {n}"))
        assert one is not None
        passed += taken(buckets, one, 0, START)
    again = 0
    for n in range(100_000):
        one = buckets.metered(requests(1, f"key {n}"))
        assert one is not None
        again += taken(buckets, one, 0, START)
    print(f"100,000 limits of one a minute: {passed} passed, then {again}")
    assert passed == 100_000
    assert again <= 2


def in_child(memory: Memory) -> int:
    """Fork a child that takes the mutex and stops there; return its pid."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = Memory(memory.descriptor).mutex
        assert own.try_take(own.pointer) == 0
        os.write(told, b"x")
        time.sleep(60)
        os._exit(0)
    os.close(told)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    return pid


def test_an_owner_that_is_stopped_or_killed_holds_up_nobody(memory: Memory) -> None:
    buckets, metered = of(memory, requests(1000))
    pid = in_child(memory)
    try:
        os.kill(pid, signal.SIGSTOP)
        began = time.perf_counter()
        assert sum(taken(buckets, metered, 0, START) for _ in range(500)) == 500
        took = time.perf_counter() - began
        print(f"500 requests beside a stopped owner took {took:.4f} s")
        assert took < 1
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    own = Memory(memory.descriptor).mutex
    answer = own.try_take(own.pointer)
    assert answer != 0, "the control: the kernel says that its owner died"
    assert own.take(answer)
    own.give_back(own.pointer)
    time.sleep(mutex.PAUSE_SECONDS_MAX)
    assert taken(buckets, metered, 0, START)
    assert own.try_take(own.pointer) == 0, "and it works as before"
    own.give_back(own.pointer)


def test_processes_that_are_killed_while_they_take_lose_at_most_one_request_each(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine an owner is without a processor for longer than the usual wait.
    monkeypatch.setattr(mutex, "WAIT_SECONDS", 20.0)
    # What was taken ahead would be lost with its process.
    monkeypatch.setattr(buckets_module, "AHEAD", 10**12)
    limit, children = 100_000_000, 24
    counted = memoryview(mmap.mmap(-1, 8 * children)).cast("q")
    running: list[int] = []
    for n in range(children):
        pid = os.fork()
        if pid == 0:
            buckets, metered = of(memory, requests(limit))
            while True:
                buckets.take(metered, 0, START)
                counted[n] += 1
        running.append(pid)
        if len(running) == 3:
            time.sleep(0.01 + 0.002 * n)
            os.kill(running[0], signal.SIGKILL)
            os.waitpid(running.pop(0), 0)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    buckets, metered = of(memory, requests(limit))
    buckets.take(metered, 0, START)
    missed = limit - left(metered.of_requests[0]) - 1 - sum(counted)
    print(f"{children} processes killed: {sum(counted)} passed, {missed} more in the bucket")
    assert sum(counted) > 1000
    assert 0 <= missed <= children

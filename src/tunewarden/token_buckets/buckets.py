"""Token buckets: so many requests and tokens a minute, exact over all processes that share their memory.

A bucket of a limit L holds L units and gets L a minute, evenly, so that in T seconds at most L * (1 + T / 60) pass. All
that is stored of it is when it will be full again (the generic cell rate algorithm, GCRA): a unit is worth 60 / L seconds,
and what would be full later than in 60 seconds does not pass.

Tokens are taken before they are used, by an estimate, and settled when they are known. What was taken too much is given
back as far as the bucket was not refilled since: else the tokens of a long request could be spent twice. What was used
beyond the estimate is taken then, into debt if need be.

A process takes ahead 1 / 5,000 of a limit at a time, so that it looks at a bucket at most some 83 times a second however
many requests pass: looking takes longer than all else. Of a limit below 5,000 that is nothing. What it took ahead and did
not use, `flush` gives back. So a limit may refuse that much early for each process and key, and lets no more pass.

Times are seconds of a monotonic clock that all processes share, such as an event loop's; one that lags refuses more.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from tunewarden.token_buckets.memory import NOWHERE, Memory

MINUTE: Final = 60.0
# Of the sums of floating-point numbers: far less than one request of any limit.
ROUNDING_SECONDS: Final = 1e-6
_MOST: Final = MINUTE + ROUNDING_SECONDS
AHEAD: Final = 5_000
# Of what is not limited.
_ANY: Final = 2**62
# Cached, by what is limited.
METERED_MAX: Final = 2048
# What a request that names no maximum is expected to say, until it is known what such requests say.
FIRST_EXPECTATION: Final = 16
# How much a request moves the expectation.
WEIGHT: Final = 0.125


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit a minute, of requests or of tokens, on what `subject` names, as errors say it.

    Limits with one `bucket` are counted together; without one it is the subject's own.
    """

    subject: str
    a_minute: int
    counts_tokens: bool
    bucket: str = ""


class Meter:
    """A process's view of one bucket. `full_in` is when it will be full, as of the last look, in seconds; 0 is full."""

    __slots__ = (
        "a_minute", "after", "at", "counts_tokens", "full_in", "number", "subject", "unit_seconds",
    )  # fmt: skip

    def __init__(self, limit: Limit) -> None:
        self.subject = limit.subject
        self.a_minute = limit.a_minute
        self.counts_tokens = limit.counts_tokens
        self.unit_seconds = MINUTE / limit.a_minute
        self.number = _number(limit)
        self.at = NOWHERE
        self.full_in = self.after = 0.0


class Metered:
    """The buckets of one kind of request, and what this process took ahead from all of them.

    `full_at` says of each bucket of tokens when it is full after the last taking. `expectation`: tokens that requests
    without a maximum said of late. `lines`: header lines, as of the last look.
    """

    __slots__ = (
        "_mean", "all", "expectation", "full_at", "lines", "of_requests", "of_tokens", "requests_ahead",
        "requests_at_once", "tokens_ahead", "tokens_at_once",
    )  # fmt: skip

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.all = [Meter(limit) for limit in limits]
        self.of_requests = [meter for meter in self.all if not meter.counts_tokens]
        self.of_tokens = [meter for meter in self.all if meter.counts_tokens]
        self.requests_at_once = self.requests_ahead = 0
        self.tokens_at_once = self.tokens_ahead = 0
        if self.of_requests:
            self.requests_at_once = min(meter.a_minute for meter in self.of_requests) // AHEAD
        else:
            self.requests_ahead = _ANY
        if self.of_tokens:
            self.tokens_at_once = min(meter.a_minute for meter in self.of_tokens) // AHEAD
        else:
            self.tokens_ahead = _ANY
        self.full_at: list[float] = []
        self.lines = b""
        self.expectation = FIRST_EXPECTATION
        self._mean = float(FIRST_EXPECTATION)

    def learn(self, output_tokens: int) -> None:
        """Note what a request without a maximum said, if that is far from what is expected."""
        if self.expectation // 2 <= output_tokens <= self.expectation:
            return
        self._mean += (output_tokens - self._mean) * WEIGHT
        self.expectation = int(self._mean) + 1


class Buckets:
    """All buckets of a server, as one of its processes uses them; on one thread."""

    __slots__ = ("_known", "_memory", "_mutex")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._mutex = memory.mutex
        self._known: dict[tuple[Limit, ...], Metered] = {}

    def metered(self, limits: tuple[Limit, ...]) -> Metered | None:
        """Return the buckets of these limits; None if there are none."""
        if not limits:
            return None
        found = self._known.get(limits)
        if found is None:
            if len(self._known) >= METERED_MAX:
                del self._known[next(iter(self._known))]
            found = self._known[limits] = Metered(limits)
        return found

    def take(self, metered: Metered, tokens: int, now: float) -> Meter | None:
        """Take a request and its tokens from all buckets, and some ahead. If one is short, return it: nothing is taken.

        Updates `full_in` of all. Of several that are short it is the one that takes longest. On the hot path the
        caller takes what is ahead itself, and does not call this.
        """
        at_once = metered.requests_at_once, metered.tokens_at_once
        for more_requests, more_tokens in (at_once, (0, 0)) if any(at_once) else (at_once,):
            requests = max(1 + more_requests - metered.requests_ahead, 0)
            wanted = max(tokens + more_tokens - metered.tokens_ahead, 0)
            short = self._take(metered, requests, wanted, now)
            if short is None:
                metered.requests_ahead += requests - 1 if metered.of_requests else 0
                metered.tokens_ahead += wanted - tokens if metered.of_tokens else 0
                metered.full_at = [now + meter.full_in for meter in metered.of_tokens]
                break
        return short

    def settle(self, metered: Metered, tokens: int, full_at: list[float], now: float) -> None:
        """Take so many tokens more, or give back those that are not used: negative.

        `full_at` is when each bucket would be full after they were taken; it was refilled as far as that is over.
        """
        most, ahead = metered.tokens_at_once, metered.tokens_ahead - tokens
        if most and -most <= ahead <= 2 * most:
            metered.tokens_ahead = ahead
        else:
            self._settle(metered, tokens, full_at, now)

    def flush(self, now: float) -> None:
        """Give back what was taken ahead and not used, or take what was used beyond it."""
        for metered in self._known.values():
            if metered.of_requests and metered.requests_ahead:
                self._give_back_requests(metered, now)
            if metered.of_tokens and metered.tokens_ahead:
                self._settle(metered, -metered.tokens_ahead, metered.full_at, now)
                metered.tokens_ahead = 0

    def _take(self, metered: Metered, requests: int, tokens: int, now: float) -> Meter | None:
        memory, short, mutex = self._memory, None, self._mutex
        full_at = memory.full_at
        answer = mutex.try_take(mutex.pointer)
        is_mine = not answer or mutex.take(answer)
        try:
            for meter in metered.all:
                at = self._place(meter, now)
                meter.full_in = max(full_at[at + 1] - now, 0.0)
                units = tokens if meter.counts_tokens else requests
                meter.after = meter.full_in + meter.unit_seconds * units
                # A taking that needs nothing more is never short.
                if units and meter.after > _MOST and (short is None or meter.after > short.after):
                    short = meter
            if short is None:
                for meter in metered.all:
                    meter.full_in = meter.after
                    full_at[meter.at + 1] = now + meter.after
        finally:
            if is_mine:
                mutex.give_back(mutex.pointer)
        return short

    def _settle(self, metered: Metered, tokens: int, full_at: list[float], now: float) -> None:
        mutex, times = self._mutex, self._memory.full_at
        answer = mutex.try_take(mutex.pointer)
        is_mine = not answer or mutex.take(answer)
        try:
            for meter, until in zip(metered.of_tokens, full_at, strict=True):
                seconds = tokens * meter.unit_seconds
                if seconds < 0.0:
                    seconds = max(seconds, min(now - until, 0.0))
                at = self._place(meter, now)
                times[at + 1] = max(max(times[at + 1], now) + seconds, now)
        finally:
            if is_mine:
                mutex.give_back(mutex.pointer)

    def _give_back_requests(self, metered: Metered, now: float) -> None:
        requests, metered.requests_ahead = metered.requests_ahead, 0
        mutex, times = self._mutex, self._memory.full_at
        answer = mutex.try_take(mutex.pointer)
        is_mine = not answer or mutex.take(answer)
        try:
            for meter in metered.of_requests:
                at = self._place(meter, now)
                times[at + 1] -= requests * meter.unit_seconds
        finally:
            if is_mine:
                mutex.give_back(mutex.pointer)

    def _place(self, meter: Meter, now: float) -> int:
        """Return the place of a bucket; under the mutex."""
        if self._memory.numbers[meter.at] != meter.number:
            meter.at = self._memory.place(meter.number, now)
        return meter.at


def _number(limit: Limit) -> int:
    """Return the number of a bucket: of what is limited and its unit, not of how much; never 0."""
    text = f"{limit.bucket or limit.subject}\0{limit.counts_tokens}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True) or 1

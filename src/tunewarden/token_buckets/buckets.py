"""Token buckets: so many requests and tokens a minute, exact over all processes that share their memory.

A bucket of a limit L holds L units and gets L a minute, evenly, so that in T seconds at most L * (1 + T / 60) pass. All
that is stored of it is when it will be full again (the generic cell rate algorithm, GCRA): a unit is worth 60 / L seconds,
and what would be full later than in 60 seconds does not pass.

Tokens are taken before they are used, by an estimate, and settled when they are known. What was taken too much is given
back as far as the bucket was not refilled since: else the tokens of a long request could be spent twice. What was used
beyond the estimate is taken then, into debt if need be. A settlement of less than a hundredth of a limit waits for the
process's next request on it, or for `flush`.

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
# A settlement that others should see at once.
SETTLED_SECONDS: Final = MINUTE / 100
# Cached, by what is limited.
METERED_MAX: Final = 2048
# What a request that names no maximum is expected to say, until it is known what such requests say.
FIRST_EXPECTATION: Final = 16
# How much a request moves the expectation.
WEIGHT: Final = 0.125


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit a minute, of requests or of tokens, on what `subject` names, as errors say it."""

    subject: str
    a_minute: int
    counts_tokens: bool


class Meter:
    """A process's view of one bucket. `full_in` is when it will be full, as of the last look, in seconds; 0 is full."""

    __slots__ = (
        "a_minute", "after", "at", "counts_tokens", "full_in", "number", "subject", "unit_seconds", "unsettled",
    )  # fmt: skip

    def __init__(self, limit: Limit) -> None:
        self.subject = limit.subject
        self.a_minute = limit.a_minute
        self.counts_tokens = limit.counts_tokens
        self.unit_seconds = MINUTE / limit.a_minute
        self.number = _number(limit)
        self.at = NOWHERE
        self.full_in = self.after = 0.0
        self.unsettled = 0.0


class Metered:
    """The buckets of one kind of request. `expectation`: tokens that those without a maximum said of late."""

    __slots__ = ("_mean", "expectation", "of_requests", "of_tokens")

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.of_requests = [Meter(limit) for limit in limits if not limit.counts_tokens]
        self.of_tokens = [Meter(limit) for limit in limits if limit.counts_tokens]
        self.expectation = FIRST_EXPECTATION
        self._mean = float(FIRST_EXPECTATION)

    def learn(self, output_tokens: int) -> None:
        """Note what a request without a maximum said."""
        self._mean += (output_tokens - self._mean) * WEIGHT
        self.expectation = int(self._mean) + 1


class Buckets:
    """All buckets of a server, as one of its processes uses them; on one thread."""

    __slots__ = ("_give_back", "_known", "_memory", "_mutex", "_pointer", "_try_take", "_unsettled")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        mutex = self._mutex = memory.mutex
        self._pointer, self._try_take, self._give_back = (
            mutex.pointer,
            mutex.try_take,
            mutex.give_back,
        )
        self._known: dict[tuple[Limit, ...], Metered] = {}
        self._unsettled: set[Meter] = set()

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
        """Take a request and its tokens from all buckets. If one is short, take nothing, and return it.

        Updates `full_in` of all. Of several that are short it is the one that takes longest.
        """
        memory, short, pointer = self._memory, None, self._pointer
        numbers, full_at = memory.numbers, memory.full_at
        answer = self._try_take(pointer)
        is_mine = not answer or self._mutex.take(answer)
        try:
            for meter in metered.of_requests:
                at = meter.at
                if numbers[at] != meter.number:
                    at = meter.at = memory.place(meter.number, now)
                full_in = full_at[at + 1] - now
                full_in = max(full_in, 0.0)
                meter.full_in = full_in
                meter.after = after = full_in + meter.unit_seconds
                if after > _MOST and (short is None or after > short.after):
                    short = meter
            for meter in metered.of_tokens:
                at = meter.at
                if numbers[at] != meter.number:
                    at = meter.at = memory.place(meter.number, now)
                full_in = full_at[at + 1] - now
                full_in = max(full_in, 0.0)
                if meter.unsettled:
                    full_in = self._settled(meter, now)
                meter.full_in = full_in
                meter.after = after = full_in + meter.unit_seconds * tokens
                if after > _MOST and (short is None or after > short.after):
                    short = meter
            if short is None:
                for meter in metered.of_requests:
                    meter.full_in = after = meter.after
                    full_at[meter.at + 1] = now + after
                for meter in metered.of_tokens:
                    meter.full_in = after = meter.after
                    full_at[meter.at + 1] = now + after
        finally:
            if is_mine:
                self._give_back(pointer)
        return short

    def settle(self, meter: Meter, tokens: int, full_at: float, now: float) -> None:
        """Take so many tokens more, or give back those that are not used: negative.

        `full_at` is when the bucket would be full after they were taken; it was refilled as far as that is over.
        """
        seconds = tokens * meter.unit_seconds
        if seconds < 0.0:
            seconds = max(seconds, now - full_at)
            if seconds >= 0.0:
                return
        meter.unsettled += seconds
        if -SETTLED_SECONDS < meter.unsettled < SETTLED_SECONDS:
            self._unsettled.add(meter)
        else:
            self._settle_now((meter,), now)

    def flush(self, now: float) -> None:
        """Settle what waits for it."""
        if self._unsettled:
            self._settle_now(tuple(self._unsettled), now)
            self._unsettled.clear()

    def _settle_now(self, meters: tuple[Meter, ...], now: float) -> None:
        answer = self._try_take(self._pointer)
        is_mine = not answer or self._mutex.take(answer)
        try:
            for meter in meters:
                self._settled(meter, now)
        finally:
            if is_mine:
                self._give_back(self._pointer)

    def _settled(self, meter: Meter, now: float) -> float:
        """Settle under the mutex; return in how many seconds the bucket is full then."""
        memory = self._memory
        if memory.numbers[meter.at] != meter.number:
            meter.at = memory.place(meter.number, now)
        full_in = max(memory.full_at[meter.at + 1] - now, 0.0) + meter.unsettled
        meter.unsettled = 0.0
        full_in = max(full_in, 0.0)
        memory.full_at[meter.at + 1] = now + full_in
        return full_in


def _number(limit: Limit) -> int:
    """Return the number of a bucket: of what is limited and its unit, not of how much; never 0."""
    text = f"{limit.subject}\0{limit.counts_tokens}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True) or 1

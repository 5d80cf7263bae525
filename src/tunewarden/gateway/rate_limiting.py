"""Rate limits on inference requests: OpenAI's headers and errors, and tokens that are taken before they are known.

A prompt is estimated by its bytes, a response by the request's own maximum, or by what requests without one said of late.
"""

import math
from collections import Counter
from typing import Final

from tunewarden.errors import Error, Kind
from tunewarden.gateway.inference_request import InferenceRequest
from tunewarden.gateway.rewriting import Counted
from tunewarden.metrics import families, recording
from tunewarden.token_buckets.buckets import (
    MINUTE,
    ROUNDING_SECONDS,
    Buckets,
    Meter,
    Metered,
)

CODE: Final = "rate_limit_exceeded"
# Of English text; what a tokenizer says of a prompt is known when it was answered.
BYTES_A_TOKEN: Final = 4
# Added to the time after which to try again: an event loop's clock is late by its turn.
LATE_SECONDS: Final = 0.005
# Refusals that a worker answers at once, of one limit; later ones are held, so that a connection gets ten a second.
REFUSALS_A_SECOND: Final = 20
PAUSE_SECONDS: Final = 0.1
# Of an error's `type` and of the headers; and how a message calls them.
REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
UNITS: Final = {REQUESTS: "requests per min (RPM)", TOKENS: "tokens per min (TPM)"}
_OF_REQUESTS: Final = b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
_OF_TOKENS: Final = _OF_REQUESTS.replace(b"requests", b"tokens")
_OF_BOTH: Final = _OF_REQUESTS + _OF_TOKENS


# What an admitted request took: from what, how many tokens, when each bucket of tokens is full then, and whether their
# number is an expectation. A tuple, because this is the hot path.
Reserved = tuple[Metered, int, list[float], bool]


class RateLimiter:
    """The limits of a worker's requests. Times are seconds of its event loop."""

    __slots__ = ("_buckets", "_refused", "_second")

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        # How often each was refused in the second that began at `_second`.
        self._refused: Counter[Metered] = Counter()
        self._second = 0.0

    def take(self, metered: Metered, request: InferenceRequest, now: float) -> Reserved | Error:
        """Take a request and its tokens; Error(RATE_LIMITED), not raised, if a limit forbids it.

        `metered.lines` are the header lines then.
        """
        output, is_expectation = request.output_max, False
        if output is None:
            output, is_expectation = metered.expectation, True
        tokens = request.size // BYTES_A_TOKEN + output
        if metered.requests_ahead > 0 and tokens <= metered.tokens_ahead:
            metered.requests_ahead -= 1
            metered.tokens_ahead -= tokens
            return metered, tokens, metered.full_at, is_expectation
        short = self._buckets.take(metered, tokens, now)
        metered.lines = lines(metered)
        if short is None:
            return metered, tokens, metered.full_at, is_expectation
        recording.count(families.RATE_LIMITED, _kind(short))
        if short.counts_tokens and tokens > short.a_minute:
            return _too_large(short, tokens)
        return _reached(short, tokens)

    def pause(self, metered: Metered, now: float) -> float:
        """Return for how many seconds to hold a refusal: those who do not wait as they are told must not take the worker."""
        if now - self._second >= 1.0:
            self._second = now
            self._refused.clear()
        self._refused[metered] += 1
        return 0.0 if self._refused[metered] <= REFUSALS_A_SECOND else PAUSE_SECONDS

    def settle(self, reserved: Reserved, used: Counted, now: float) -> None:
        """Settle the tokens of a request that ended."""
        metered, tokens, full_at, is_expectation = reserved
        prompt, output, _ = used
        if is_expectation and prompt:
            metered.learn(output)
        more = prompt + output - tokens
        if full_at and more:
            self._buckets.settle(metered, more, full_at, now)

    def settle_untold(
        self, reserved: Reserved, request: InferenceRequest, output: int, now: float
    ) -> None:
        """Settle a request whose engine did not tell the tokens, or not before its client left.

        Its prompt is estimated by its bytes, `output` by what was sent; nothing is given back.
        """
        metered, tokens, full_at, is_expectation = reserved
        if is_expectation and output > metered.expectation:
            metered.learn(output)
        more = request.size // BYTES_A_TOKEN + output - tokens
        if full_at and more > 0:
            self._buckets.settle(metered, more, full_at, now)


def lines(metered: Metered) -> bytes:
    """Return the header lines of the limits as of the last look: of several of one unit, of the one with least left."""
    requests, tokens = metered.of_requests, metered.of_tokens
    one = requests[0] if len(requests) == 1 else min(requests, key=_left, default=None)
    other = tokens[0] if len(tokens) == 1 else min(tokens, key=_left, default=None)
    if one is None or other is None:
        return b"".join(
            [
                shape % (meter.a_minute, _left(meter), _reset(meter.full_in))
                for shape, meter in ((_OF_REQUESTS, one), (_OF_TOKENS, other))
                if meter is not None
            ]
        )
    return _OF_BOTH % (
        one.a_minute, _left(one), _reset(one.full_in), other.a_minute, _left(other), _reset(other.full_in),
    )  # fmt: skip


def _left(meter: Meter) -> int:
    """Return how many units were left at the last look."""
    left = int((MINUTE - meter.full_in + ROUNDING_SECONDS) / meter.unit_seconds)
    return left if left > 0 else 0  # noqa: FURB136  on the hot path


def _reset(seconds: float) -> bytes:
    if seconds < 1.0:
        return b"%dms" % (seconds * 1000 + 0.999)
    return b"%gs" % seconds if seconds < MINUTE else duration(seconds).encode()


def duration(seconds: float) -> str:
    """Return a time as OpenAI writes it: `17ms`, `1.52s`, `6m0s`; rounded up to milliseconds."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    shown = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{shown}s" if minutes else f"{shown}s"


def _kind(meter: Meter) -> str:
    return TOKENS if meter.counts_tokens else REQUESTS


def _reached(meter: Meter, tokens: int) -> Error:
    kind, seconds = _kind(meter), meter.after - MINUTE + LATE_SECONDS
    used = round(meter.full_in / meter.unit_seconds)
    return Error(
        Kind.RATE_LIMITED,
        f"Rate limit reached for {meter.subject} on {UNITS[kind]}: Limit {meter.a_minute}, Used {used},"
        f" Requested {tokens if meter.counts_tokens else 1}. Please try again in {duration(seconds)}.",
        code=CODE,
        type=kind,
        retry_after_seconds=seconds,
    )


def _too_large(meter: Meter, tokens: int) -> Error:
    return Error(
        Kind.RATE_LIMITED,
        f"Request too large for {meter.subject} on {UNITS[TOKENS]}: Limit {meter.a_minute}, Requested"
        f" {tokens}. The input or output tokens must be reduced in order to run successfully.",
        code=CODE,
        type=TOKENS,
    )

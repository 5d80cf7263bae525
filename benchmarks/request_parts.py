"""What counting and limiting a request take of the worker's event loop, alone: `python -m benchmarks.request_parts`.

The least of many repetitions, in microseconds, which other work on the machine changes little. A chat takes some 80 µs of
a worker's processor time (`python -m benchmarks.against`).
"""

import time
import timeit
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tunewarden.clock import SystemClock
from tunewarden.gateway.rate_limiting import RateLimiter
from tunewarden.gateway.rewriting import usage_of
from tunewarden.registry.usage_counter import UsageCounter
from tunewarden.token_buckets.buckets import Buckets, Limit
from tunewarden.token_buckets.memory import Memory

ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"'
    + 40 * b"word "
    + b'"},"finish_reason":"stop"}],"usage":{"prompt_tokens":40,"completion_tokens":16,"total_tokens":56}}'
)
# Short ones, so that some fit between what else runs on the machine.
TIMES, REPETITIONS = 300, 2_000


def counting() -> Callable[[], None]:
    """Return what counts a request's tokens, from the answer's bytes."""
    unused: Any = None
    counter = UsageCounter(unused, SystemClock())
    caller: Any = SimpleNamespace(
        key_id="key_1", organization_id="org", project_id="p", user_id="u"
    )
    target: Any = SimpleNamespace(public_id="ft:demo:org::abcdefgh", n=1, project_id="p")

    def count() -> None:
        counter.add(caller, target, "completions", usage_of(ANSWER).counted)

    return count


def limiting() -> Callable[[], None]:
    """Return what takes a request from limits of requests and of tokens, and settles it."""
    buckets = Buckets(Memory.create())
    limiter = RateLimiter(buckets)
    metered = buckets.metered(
        (Limit("p", 10_000_000, counts_tokens=False), Limit("p", 1_000_000_000, counts_tokens=True))
    )
    request: Any = SimpleNamespace(output_max=16, size=200)
    now = time.monotonic()
    assert metered is not None

    def take() -> None:
        reserved: Any = limiter.take(metered, request, now)
        limiter.settle(reserved, (40, 16, 0), now)

    return take


def main() -> None:
    bare = _least(lambda: None)
    for what, work in (
        ("counting usage", counting()),
        ("taking from limits and settling", limiting()),
    ):
        print(f"{what}: {_least(work) - bare:.2f} µs")


def _least(work: Callable[[], None]) -> float:
    return min(timeit.repeat(work, number=TIMES, repeat=REPETITIONS)) / TIMES * 1e6


if __name__ == "__main__":
    main()

"""Asks several engines at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_parallel(work: Callable[[A], B], arguments: Sequence[A]) -> list[B]:
    """Call `work` with each argument, each in a thread, and wait for all; then raise the first error."""
    if len(arguments) <= 1:
        return [work(one) for one in arguments]
    with ThreadPoolExecutor(len(arguments)) as threads:
        return [one.result() for one in [threads.submit(work, one) for one in arguments]]

"""Answers in lines of JSON, one object a line: of work that goes on while they are sent."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from tunewarden.errors import Error, Kind
from tunewarden.json_encoding import encoded

JSON_LINES = "application/jsonl"
# Each has a thread of the worker's while a group of its lines is made.
AT_ONCE_MAX = 6
OF_ORGANIZATION_MAX = 2
RETRY_SECONDS = 5
T = TypeVar("T")


class LongWork:
    """How many such answers one worker gives at once. Thread-safe."""

    def __init__(
        self,
        at_once_max: int = AT_ONCE_MAX,
        of_organization_max: int = OF_ORGANIZATION_MAX,
        what: str = "bulk deletions, previews and runs of retention rules",
    ) -> None:
        self._at_once_max = at_once_max
        self._of_organization_max = of_organization_max
        self._what = what
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, organization_id: str) -> Iterator[None]:
        """Hold a place. Raises Error(UNAVAILABLE) if there is none."""
        with self._lock:
            is_full = self._held.total() >= self._at_once_max
            if is_full or self._held[organization_id] >= self._of_organization_max:
                raise Error(
                    Kind.UNAVAILABLE,
                    f"Too many {self._what} at once. Try again when one is over.",
                    code="too_many_at_once",
                    retry_after_seconds=RETRY_SECONDS,
                )
            self._held[organization_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[organization_id] -= 1
                if not self._held[organization_id]:
                    del self._held[organization_id]


async def answer(
    work: LongWork,
    organization_id: str,
    begin: Callable[[], Iterator[Iterable[T]]],
    shown: Callable[[T], Any],
) -> StreamingResponse:
    """Stream what `begin` returns, in groups of lines that are ready at once: each group costs a change of threads.

    What it raises before the first group is an answer of its own.
    """
    lines = _lines(work, organization_id, begin, shown)
    first = await run_in_threadpool(next, lines, b"")
    return StreamingResponse(chain((first,), lines), media_type=JSON_LINES)


def singly(begin: Callable[[], Iterator[T]]) -> Callable[[], Iterator[tuple[T]]]:
    """Return `begin` for `answer`, with each line sent as soon as it is made."""
    return lambda: zip(begin(), strict=True)


def _lines(
    work: LongWork,
    organization_id: str,
    begin: Callable[[], Iterator[Iterable[T]]],
    shown: Callable[[T], Any],
) -> Iterator[bytes]:
    with work.held(organization_id):
        for group in begin():
            yield b"".join(encoded(shown(one)) + b"\n" for one in group)

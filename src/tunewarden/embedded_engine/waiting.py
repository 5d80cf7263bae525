"""The queue of waiting rows, with fair sharing between organizations (docs/decisions/0014).

The organization with the fewest running rows comes first. The batch may grow for one that
has almost none, so that others' long completions do not starve it.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tunewarden.embedded_engine.sequences import Row
from tunewarden.engine_protocol.codes import Code
from tunewarden.errors import Error, Kind

# An organization may run this many rows even if others fill the batch, which at most doubles for that.
GUARANTEED_ROWS = 2
BATCH_GROWTH = 2
# The queue may grow by this factor for organizations with less than their share in it.
QUEUE_GROWTH = 4
SHARES = 4


class WaitingRows:
    """Used by the step thread only, except `announce`."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._queues: dict[str, deque[Row]] = {}
        self._lock = threading.Lock()
        # By organization: announced rows that do not run yet.
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return the number of waiting rows, announced ones included. Thread-safe."""
        return self._counts.total()

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, each organization's in FIFO order."""
        for queue in self._queues.values():
            yield from queue

    def announce(self, organization: str, count: int) -> None:
        """Reserve room for rows before `add`. Thread-safe. Raises Error(UNAVAILABLE) if the queue is full."""
        with self._lock:
            own = self._counts[organization]
            has_little = not own or own + count <= self._rows_max // SHARES
            most = self._rows_max * (QUEUE_GROWTH if has_little else 1)
            if count > self._rows_max or self._counts.total() + count > most:
                raise _overloaded()
            self._counts[organization] += count

    def withdraw(self, organization: str, count: int) -> None:
        """Cancel an announcement."""
        with self._lock:
            self._counts[organization] -= count
            if not self._counts[organization]:
                del self._counts[organization]

    def add(self, rows: Sequence[Row]) -> None:
        """Queue a request's announced rows."""
        self._queues.setdefault(rows[0].asked_by, deque()).extend(rows)

    def put_back(self, rows: Sequence[Row]) -> None:
        """Requeue rows at the front of their organizations' queues."""
        for row in reversed(rows):
            with self._lock:
                self._counts[row.asked_by] += 1
            self._queues.setdefault(row.asked_by, deque()).appendleft(row)

    def take(self, rows: Iterable[Row]) -> None:
        """Dequeue rows that run now, the first ones of their organizations."""
        for row in rows:
            queue = self._queues[row.asked_by]
            first = queue.popleft()
            assert first is row, "each organization's rows come in order"
            self.withdraw(row.asked_by, 1)
            if not queue:
                del self._queues[row.asked_by]

    def drop(self, unwanted: Callable[[Row], bool]) -> None:
        """Remove matching rows."""
        for organization, queue in list(self._queues.items()):
            staying = deque(row for row in queue if not unwanted(row))
            self.withdraw(organization, len(queue) - len(staying))
            if staying:
                self._queues[organization] = staying
            else:
                del self._queues[organization]

    def next_ones(self, running: Iterable[Row], rows_max: int) -> Iterator[Row]:
        """Yield the rows that may join, in order.

        `running` holds places of `rows_max` in total; more only for organizations with almost none.
        """
        held = Counter(row.asked_by for row in running)
        total = held.total()
        queues = {organization: iter(queue) for organization, queue in self._queues.items()}
        while queues:
            chosen = _neediest(queues, held)
            is_full = total >= rows_max
            if is_full and (held[chosen] >= GUARANTEED_ROWS or total >= rows_max * BATCH_GROWTH):
                return
            row = next(queues[chosen], None)
            if row is None:
                del queues[chosen]
                continue
            held[chosen] += 1
            total += 1
            yield row


def _neediest(organizations: Iterable[str], held: Mapping[str, int]) -> str:
    return min(organizations, key=lambda one: held[one])


def _overloaded() -> Error:
    return Error(
        Kind.UNAVAILABLE,
        "The engine is overloaded. Please try again later.",
        code=Code.ENGINE_OVERLOADED,
        retry_after_seconds=1,
    )

"""The queue of waiting requests, with fair sharing of rows (docs/decisions/0014).

The organization with the fewest running rows comes first, and within it the request with the fewest. The batch may
grow for an organization that has almost none, and for a request that has none beside another's many, so that long
answers starve nobody.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count

from tunewarden.embedded_engine.queued import TOKENS_BESIDE, QueueBound, Queued
from tunewarden.embedded_engine.sequences import Receiver, Row

# An organization may run this many rows even if others fill the batch, which at most doubles for that.
GUARANTEED_ROWS = 2
BATCH_GROWTH = 2
# Of the batch's size: what the first rows of requests may take beyond it, which organizations share.
SHARE_OF_FIRST_ROWS = 2


class WaitingRows:
    """Used by the step thread only, except `announce`."""

    def __init__(self, tokens_max: int) -> None:
        self._bound = QueueBound(tokens_max)
        # Each organization's requests; the one that took a row last is the last.
        self._queues: dict[str, OrderedDict[Receiver, Queued]] = {}

    def __len__(self) -> int:
        """Return the number of waiting rows, announced ones included. Thread-safe."""
        return self._bound.rows

    def __iter__(self) -> Iterator[Queued]:
        """Yield the requests."""
        for queue in self._queues.values():
            yield from queue.values()

    def announce(self, request: Queued) -> None:
        """Reserve room for a request before `add`. Thread-safe. Raises Error(UNAVAILABLE) if the queue is full."""
        self._bound.admit(request)

    def withdraw(self, request: Queued) -> None:
        """Cancel an announcement."""
        self._bound.remove(request.asked_by, request.receiver, request.count, request.tokens)

    def add(self, request: Queued) -> None:
        """Queue an announced request."""
        self._queues.setdefault(request.asked_by, OrderedDict())[request.receiver] = request

    def put_back(self, rows: Sequence[Row]) -> None:
        """Requeue rows as the first ones of their requests, and these as the first ones of their organizations."""
        for row in reversed(rows):
            tokens = len(row.prompt) + TOKENS_BESIDE
            self._bound.add(row, tokens)
            queue = self._queues.setdefault(row.asked_by, OrderedDict())
            queue.setdefault(row.receiver, Queued.again(row)).put_back(row, tokens)
            queue.move_to_end(row.receiver, last=False)

    def take(self, rows: Iterable[Row]) -> None:
        """Dequeue rows that run now, in the order of `next_ones`."""
        for row in rows:
            queue = self._queues[row.asked_by]
            request = queue[row.receiver]
            first, tokens = request.take()
            assert first is row, "each request's rows come in order"
            self._bound.remove(row.asked_by, row.receiver, 1, tokens)
            if request.count:
                queue.move_to_end(row.receiver)
                continue
            del queue[row.receiver]
            if not queue:
                del self._queues[row.asked_by]

    def drop(self, unwanted: Callable[[Queued], bool]) -> None:
        """Remove matching requests."""
        for organization, queue in list(self._queues.items()):
            for request in [one for one in queue.values() if unwanted(one)]:
                self.withdraw(request)
                del queue[request.receiver]
            if not queue:
                del self._queues[organization]

    def next_ones(self, running: Iterable[Row], rows_max: int) -> Iterator[Row]:
        """Yield the rows that may join, in order, and note on each whether it is an extra one (Row.is_extra).

        `running` holds places of `rows_max` in total, its extra rows none.
        """
        places = _Places(running, self._queues, rows_max)
        turns = {
            one: _in_turns(queue.values(), places.of_requests)
            for one, queue in self._queues.items()
        }
        while turns:
            chosen = min(turns, key=places.of_organizations.__getitem__)
            if not places.has_one_for(chosen):
                break
            row = next(turns[chosen], None)
            if row is None:
                del turns[chosen]
                continue
            yield places.taken(row, is_extra=False)
        turns = {one: turn for one, turn in turns.items() if one in places.have_many}
        while turns:
            chosen = min(turns, key=places.of_organizations.__getitem__)
            row = next(turns[chosen], None) if places.has_extra_for(chosen) else None
            if row is None or places.of_requests[row.receiver]:
                del turns[chosen]
                continue
            yield places.taken(row, is_extra=True)


class _Places:
    """The batch's places, and who has them."""

    def __init__(self, running: Iterable[Row], waiting: Iterable[str], rows_max: int) -> None:
        self.of_organizations: Counter[str] = Counter()
        self.of_requests: Counter[Receiver] = Counter()
        # Organizations with a request that runs several rows.
        self.have_many: set[str] = set()
        self._extras: Counter[str] = Counter()
        self._total = 0
        self._extra = 0
        self._rows_max = rows_max
        for row in running:
            self.taken(row, is_extra=row.is_extra)
        organizations = len(self.of_organizations.keys() | set(waiting))
        self._extras_max = max(1, rows_max // SHARE_OF_FIRST_ROWS // max(1, organizations))

    def has_one_for(self, organization: str) -> bool:
        """Return whether it may run one more row."""
        if self._total - self._extra < self._rows_max:
            return True
        return (
            self.of_organizations[organization] < GUARANTEED_ROWS
            and self._total < self._rows_max * BATCH_GROWTH
        )

    def has_extra_for(self, organization: str) -> bool:
        """Return whether it may run the first row of one more request although the batch is full."""
        return (
            self._extras[organization] < self._extras_max
            and self._total < self._rows_max * BATCH_GROWTH
        )

    def taken(self, row: Row, *, is_extra: bool) -> Row:
        """Count a row that runs, and return it."""
        row.is_extra = is_extra
        self._total += 1
        self._extra += is_extra
        self.of_organizations[row.asked_by] += 1
        self.of_requests[row.receiver] += 1
        self._extras[row.asked_by] += is_extra
        if self.of_requests[row.receiver] > 1:
            self.have_many.add(row.asked_by)
        return row


def _in_turns(requests: Iterable[Queued], held: Mapping[Receiver, int]) -> Iterator[Row]:
    """Yield the next row of the request that runs the fewest, again and again; of several such, of the first."""
    later: list[tuple[int, int, int, Queued]] = []
    turn = count()
    for request in requests:
        row = None if held[request.receiver] else request.row(0)
        if row is not None:
            yield row
        heapq.heappush(later, (held[request.receiver], next(turn), int(row is not None), request))
    while later:
        rows, _, at, request = heapq.heappop(later)
        row = request.row(at)
        if row is not None:
            yield row
            heapq.heappush(later, (rows + 1, next(turn), at + 1, request))

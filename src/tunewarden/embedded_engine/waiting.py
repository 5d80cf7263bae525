"""The queue of waiting requests, with fair sharing of rows between organizations (docs/decisions/0014).

The organization with the fewest running rows comes first, and within it the requests take turns. The batch may grow
for one that has almost none, so that others' long completions do not starve it.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tunewarden.embedded_engine.sequences import Receiver, Row
from tunewarden.engine_protocol.codes import Code
from tunewarden.errors import Error, Kind

# An organization may run this many rows even if others fill the batch, which at most doubles for that.
GUARANTEED_ROWS = 2
BATCH_GROWTH = 2
# The queue may grow by this factor for organizations with less than their share in it.
QUEUE_GROWTH = 4
SHARES = 4


# What a request counts for beside its tokens.
TOKENS_BESIDE = 64


class Queued:
    """A request in the queue. Its rows are made when they are about to run: a request may have 100,000."""

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        receiver: Receiver,
        adapter: str | None,
        asked_by: str,
        count: int,
        tokens: int,
    ) -> None:
        self.receiver = receiver
        self.adapter = adapter
        self.asked_by = asked_by
        # Of the rows that were not taken. The last one takes what is left of the tokens.
        self.count = count
        self.tokens = tokens
        self._source = iter(rows)
        self._made: deque[Row] = deque()

    @classmethod
    def again(cls, row: Row, tokens: int) -> "Queued":
        """Return a row that ran, to be queued again."""
        return cls(
            [row],
            receiver=row.receiver,
            adapter=row.adapter,
            asked_by=row.asked_by,
            count=1,
            tokens=tokens,
        )

    def row(self, at: int) -> Row | None:
        """Return the row at a place among those that were not taken."""
        while len(self._made) <= at:
            row = next(self._source, None)
            if row is None:
                return None
            self._made.append(row)
        return self._made[at]

    def take(self) -> tuple[Row, int]:
        """Remove the first row; return it and the tokens that it counted for."""
        share = self.tokens // self.count
        self.tokens -= share
        self.count -= 1
        return self._made.popleft(), share


class WaitingRows:
    """Used by the step thread only, except `announce`."""

    def __init__(self, tokens_max: int) -> None:
        self._tokens_max = tokens_max
        self._queues: dict[str, deque[Queued]] = {}
        self._lock = threading.Lock()
        # By organization: tokens of announced rows that do not run yet.
        self._tokens: Counter[str] = Counter()
        self._rows = 0

    def __len__(self) -> int:
        """Return the number of waiting rows, announced ones included. Thread-safe."""
        return self._rows

    def __iter__(self) -> Iterator[Queued]:
        """Yield the requests, each organization's in the order of their turns."""
        for queue in self._queues.values():
            yield from queue

    def announce(self, organization: str, rows: int, tokens: int) -> None:
        """Reserve room for a request before `add`. Thread-safe. Raises Error(UNAVAILABLE) if the queue is full."""
        with self._lock:
            own = self._tokens[organization]
            has_little = not own or own + tokens <= self._tokens_max // SHARES
            most = self._tokens_max * (QUEUE_GROWTH if has_little else 1)
            # A request that is larger than the queue waits alone.
            if self._tokens.total() and self._tokens.total() + tokens > most:
                raise _overloaded()
            self._tokens[organization] += tokens
            self._rows += rows

    def withdraw(self, organization: str, rows: int, tokens: int) -> None:
        """Cancel an announcement."""
        with self._lock:
            self._rows -= rows
            self._tokens[organization] -= tokens
            if not self._tokens[organization]:
                del self._tokens[organization]

    def add(self, request: Queued) -> None:
        """Queue an announced request."""
        self._queues.setdefault(request.asked_by, deque()).append(request)

    def put_back(self, rows: Sequence[Row]) -> None:
        """Requeue rows at the front of their organizations' queues."""
        for row in reversed(rows):
            tokens = len(row.prompt) + TOKENS_BESIDE
            with self._lock:
                self._rows += 1
                self._tokens[row.asked_by] += tokens
            self._queues.setdefault(row.asked_by, deque()).appendleft(Queued.again(row, tokens))

    def take(self, rows: Iterable[Row]) -> None:
        """Dequeue rows that run now, the first ones of their organizations."""
        for row in rows:
            queue = self._queues[row.asked_by]
            request = queue.popleft()
            first, tokens = request.take()
            assert first is row, "each organization's rows come in order"
            self.withdraw(row.asked_by, 1, tokens)
            if request.count:
                queue.append(request)
            elif not queue:
                del self._queues[row.asked_by]

    def drop(self, unwanted: Callable[[Queued], bool]) -> None:
        """Remove matching requests."""
        for organization, queue in list(self._queues.items()):
            staying = deque(one for one in queue if not unwanted(one))
            for one in queue:
                if unwanted(one):
                    self.withdraw(organization, one.count, one.tokens)
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
        queues = {one: _in_turns(queue) for one, queue in self._queues.items()}
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


def _in_turns(requests: Iterable[Queued]) -> Iterator[Row]:
    """Yield the first row of each request, then the second of each that has one, and so on: as `take` goes on."""
    turns = deque((request, 0) for request in requests)
    while turns:
        request, at = turns.popleft()
        row = request.row(at)
        if row is not None:
            yield row
            turns.append((request, at + 1))


def _neediest(organizations: Iterable[str], held: Mapping[str, int]) -> str:
    return min(organizations, key=lambda one: held[one])


def _overloaded() -> Error:
    return Error(
        Kind.UNAVAILABLE,
        "The engine is overloaded. Please try again later.",
        code=Code.ENGINE_OVERLOADED,
        retry_after_seconds=1,
    )

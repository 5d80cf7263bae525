"""A request that waits, and how much may wait in all (docs/decisions/0014)."""

import threading
from collections import deque
from collections.abc import Iterable

from tunewarden.embedded_engine.sequences import Receiver, Row
from tunewarden.engine_protocol.codes import Code
from tunewarden.errors import Error, Kind

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
    def again(cls, row: Row) -> "Queued":
        """Return a request without rows, for one that ran and waits again (`put_back`)."""
        return cls(
            (), receiver=row.receiver, adapter=row.adapter, asked_by=row.asked_by, count=0, tokens=0
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

    def put_back(self, row: Row, tokens: int) -> None:
        """Make a row the first again."""
        self._made.appendleft(row)
        self.count += 1
        self.tokens += tokens


class QueueBound:
    """Bounds the queue by the tokens of its requests. Thread-safe."""

    def __init__(self, tokens_max: int) -> None:
        self.rows = 0
        self._tokens_max = tokens_max
        self._lock = threading.Lock()
        # By organization and request: tokens that do not run yet.
        self._tokens: dict[str, dict[Receiver, int]] = {}
        self._total = 0

    def admit(self, request: Queued) -> None:
        """Count a request in. Raises Error(UNAVAILABLE) if the queue is full."""
        with self._lock:
            # A request that is larger than the queue waits alone.
            full = self._total and self._total + request.tokens > self._tokens_max
            if full and (
                self._total + request.tokens > self._tokens_max * QUEUE_GROWTH
                or not self._has_little(request)
            ):
                raise overloaded()
            self._add(request.asked_by, request.receiver, request.count, request.tokens)

    def add(self, row: Row, tokens: int) -> None:
        """Count a row in that was taken out before."""
        with self._lock:
            self._add(row.asked_by, row.receiver, 1, tokens)

    def remove(self, asked_by: str, receiver: Receiver, rows: int, tokens: int) -> None:
        """Count rows out."""
        with self._lock:
            self._add(asked_by, receiver, -rows, -tokens)

    def _has_little(self, request: Queued) -> bool:
        """Return whether its organization has nothing here, or little beside its largest request."""
        own = self._tokens.get(request.asked_by, {}).values()
        beside = sum(own) - max(own, default=0)
        return not own or beside + request.tokens <= self._tokens_max // SHARES

    def _add(self, asked_by: str, receiver: Receiver, rows: int, tokens: int) -> None:
        own = self._tokens.setdefault(asked_by, {})
        own[receiver] = own.get(receiver, 0) + tokens
        if not own[receiver]:
            del own[receiver]
        if not own:
            del self._tokens[asked_by]
        self._total += tokens
        self.rows += rows


def overloaded() -> Error:
    """Return the error for a request that finds no room to wait."""
    return Error(
        Kind.UNAVAILABLE,
        "The engine is overloaded. Please try again later.",
        code=Code.ENGINE_OVERLOADED,
        retry_after_seconds=1,
    )

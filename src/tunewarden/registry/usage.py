"""Usage counters per model: kept in memory, flushed each second, aggregated by the hour.

A crash loses at most the last second. Counts are for people and for retention, not
for billing.
"""

from dataclasses import dataclass

from tunewarden.clock import Clock, to_micros
from tunewarden.db.database import Database
from tunewarden.errors import Error

HOUR_MICROS = 3600 * 1_000_000


@dataclass(slots=True)
class _Count:
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


Counts = dict[tuple[str, str], _Count]


class UsageCounter:
    """Counts of one worker since the last flush. Not thread-safe, except `write`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._counts: Counts = {}

    def add(
        self, organization_id: str, model_id: str, input_tokens: int, output_tokens: int
    ) -> None:
        """Count one finished request."""
        key = organization_id, model_id
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        count.requests += 1
        count.input_tokens += input_tokens
        count.output_tokens += output_tokens

    def flush(self) -> None:
        """Write the counts in one transaction; on failure keep them for the next flush."""
        taken = self.take()
        try:
            self.write(taken)
        except Error:
            self.put_back(taken)
            raise

    def take(self) -> Counts:
        """Return the counts, to be written or put back, and reset them."""
        taken, self._counts = self._counts, {}
        return taken

    def put_back(self, taken: Counts) -> None:
        """Add counts that could not be written."""
        for key, old in taken.items():
            count = self._counts.setdefault(key, _Count())
            count.requests += old.requests
            count.input_tokens += old.input_tokens
            count.output_tokens += old.output_tokens

    def write(self, taken: Counts) -> None:
        """Write counts in one transaction; thread-safe."""
        if not taken:
            return
        now = to_micros(self._clock.now())
        with self._database.write() as tx:
            for (organization_id, model_id), count in taken.items():
                tx.run(
                    "INSERT INTO usage VALUES (:organization, :model, :hour, :requests, :input, :output, :now)"
                    " ON CONFLICT (organization_id, model_id, hour_at) DO UPDATE SET"
                    " requests = usage.requests + excluded.requests,"
                    " input_tokens = usage.input_tokens + excluded.input_tokens,"
                    " output_tokens = usage.output_tokens + excluded.output_tokens,"
                    " last_used_at = excluded.last_used_at",
                    organization=organization_id,
                    model=model_id,
                    hour=now - now % HOUR_MICROS,
                    requests=count.requests,
                    input=count.input_tokens,
                    output=count.output_tokens,
                    now=now,
                )

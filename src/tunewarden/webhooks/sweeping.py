"""Ends what has waited for too long in the outbox, and cuts the logs of deliveries. In the runner."""

from tunewarden.db.database import Database
from tunewarden.metrics import families, recording
from tunewarden.webhooks import endpoint_rows, outbox

# Endpoints whose logs are cut in one transaction.
CUT_AT_ONCE = 20


class Sweeper:
    """Goes through the endpoints of all organizations, a few at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_n = 0

    def run(self) -> bool:
        """Do a part; return whether more is left. Raises Error(UNAVAILABLE)."""
        with self._database.read() as tx:
            numbers = endpoint_rows.numbers_after(tx, self._last_n, limit=CUT_AT_ONCE)
            has_work = outbox.has_expired(tx) or any(outbox.is_to_be_cut(tx, n) for n in numbers)
        is_more = len(numbers) == CUT_AT_ONCE
        if has_work:
            with self._database.write(survives=False, below_floor=True) as tx:
                ended = outbox.expire(tx)
                cut = [outbox.prune(tx, n) for n in numbers]
            recording.count(families.WEBHOOKS, "failed", by=ended)
            if outbox.SWEPT_MAX in {ended, *cut}:
                return True
        self._last_n = numbers[-1] if is_more else 0
        return is_more

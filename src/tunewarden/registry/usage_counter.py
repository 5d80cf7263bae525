"""Counts the usage of one worker in memory; written each second, so that a crash loses at most the last one."""

from typing import Final

from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.identity.policy import Caller
from tunewarden.registry import usage
from tunewarden.registry.model_lookup import Target
from tunewarden.registry.usage import Counts, KindOfRequest, Series

# Series counted at once. Each second they are written; while that fails, what is beyond them is not counted.
SERIES_MAX: Final = 20_000
# Series that one transaction writes: deletions wait for it.
WRITTEN_AT_ONCE: Final = 50
# A key's use that was no inference is written at most this often.
KEY_SECONDS: Final = 60.0
KEYS_MAX: Final = 10_000

Tokens = tuple[int, int, int]
# By key, name of the model in the request, and kind.
Key = tuple[str, str, KindOfRequest]


class Count(Counts):
    """Counts of one series since the last flush."""

    __slots__ = ("series",)

    def __init__(self, series: Series) -> None:
        super().__init__()
        self.series = series


class Taken:
    """Counts to be written: what was written is removed from them."""

    def __init__(self, counts: dict[Key, Count], keys: dict[str, str]) -> None:
        self.counts = counts
        self.keys = keys  # key id -> organization

    def __bool__(self) -> bool:
        return bool(self.counts or self.keys)


class UsageCounter:
    """Counts of one worker since the last flush. Not thread-safe, except `write`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._counts: dict[Key, Count] = {}
        self._keys: dict[str, str] = {}
        self._writing: dict[Key, Count] = {}  # taken; what was written is removed
        self._keys_due: dict[str, float] = {}
        self.uncounted = 0

    def add(self, caller: Caller, target: Target, kind: KindOfRequest, tokens: Tokens) -> None:
        """Count a request that ended; `tokens` are (input, output, of the input: cached)."""
        count = self._counts.get((caller.key_id, target.public_id, kind))
        if count is None:
            count = self._begin(caller, target, kind)
        given, said, cached = tokens
        count.requests += 1
        count.input_tokens += given
        count.output_tokens += said
        count.cached_tokens += cached

    def note_key(self, organization_id: str, key_id: str) -> None:
        """Note that a key was used for anything but inference."""
        now = self._clock.monotonic()
        if self._keys_due.get(key_id, now) <= now:
            if len(self._keys_due) >= KEYS_MAX:
                self._keys_due.clear()
            self._keys_due[key_id] = now + KEY_SECONDS
            if len(self._keys) < KEYS_MAX:
                self._keys[key_id] = organization_id

    def has_any(self) -> bool:
        """Return whether anything is to be written."""
        return bool(self._counts or self._keys)

    def has_unwritten(self, model_id: str) -> bool:
        """Return whether requests on a model are not written yet; thread-safe."""
        # Copies of the keys, each made in one step, because the event loop goes on counting.
        counted = [*self._counts, *self._writing]
        return any(name == model_id for _, name, _ in counted)

    def flush(self) -> None:
        """Write the counts; what cannot be written is kept for the next flush. Raises Error."""
        taken = self.take()
        try:
            self.write(taken)
        finally:
            self.put_back(taken)

    def take(self) -> Taken:
        """Return the counts, to be written or put back, and reset them."""
        taken = Taken(self._counts, self._keys)
        self._writing = taken.counts
        self._counts, self._keys = {}, {}
        return taken

    def put_back(self, taken: Taken) -> None:
        """Add counts that were not written: they will count as usage of the time when they are."""
        for key, old in taken.counts.items():
            count = self._counts.get(key)
            if count is not None:
                count.add(old)
            elif len(self._counts) < SERIES_MAX:
                self._counts[key] = old
            else:
                self.uncounted += old.requests
        for key_id, organization_id in taken.keys.items():
            if len(self._keys) < KEYS_MAX:
                self._keys[key_id] = organization_id

    def write(self, taken: Taken) -> None:
        """Write counts and remove from `taken` what was written; thread-safe. Raises Error.

        In short transactions, so that a deletion need not wait for all. No commit is synced: a crash of the process
        loses none; a power cut loses those since the last commit that is (of a deletion, for example).
        """
        while taken:
            keys = list(taken.counts)[:WRITTEN_AT_ONCE]
            noted = list(taken.keys)[:WRITTEN_AT_ONCE]
            with self._database.write(survives=False) as tx:
                for key in keys:
                    count = taken.counts[key]
                    usage.add(tx, count.series, count)
                used = {taken.counts[key].series.key_id: taken.counts[key].series for key in keys}
                for key_id, series in used.items():
                    usage.note_key(tx, series.organization_id, key_id)
                for key_id in noted:
                    usage.note_key(tx, taken.keys[key_id], key_id)
            for key in keys:
                del taken.counts[key]
            for key_id in noted:
                del taken.keys[key_id]

    def _begin(self, caller: Caller, target: Target, kind: KindOfRequest) -> Count:
        # A base may have been asked for by another name.
        model_id = target.base.name if target.n is None else target.public_id
        series = Series(
            caller.organization_id,
            caller.key_id,
            caller.user_id,
            caller.project_id,
            model_id,
            kind,
        )
        count = Count(series)
        if len(self._counts) < SERIES_MAX:
            self._counts[caller.key_id, target.public_id, kind] = count
        else:
            self.uncounted += 1
        return count

"""Makes the digests of the audit log: once a day, a leaf of the log over all events since the one before.

1. One transaction stores the digest, its statement byte for byte, and its parts.
2. Its leaf is appended to the log.
3. Another transaction stores the leaf's index.

A crash before 1 leaves nothing; after it, 2 and 3 are repeated with the same bytes, which the log has once at most. A
day without a server is caught up by the next run, and a day without events has no digest. Nothing here goes by the
order of the events' times, which a clock that is set back changes, but by their numbers.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from tunewarden import __version__
from tunewarden.audit import digests, events
from tunewarden.audit.digests import Digest, Entry, Part
from tunewarden.audit.events import Event
from tunewarden.clock import Clock, from_micros, iso
from tunewarden.db.database import Database, Tx
from tunewarden.ids import random_bytes
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden_receipts import receipt
from tunewarden_receipts.audit_digest import AuditDigestLeaf, AuditPart, digest_root, events_root
from tunewarden_receipts.commitments import SALT_BYTES

# More events since the last digest are divided into several.
EVENTS_MAX = 20_000
_PAGE = 1_000
UNREADABLE = b"unreadable"


@dataclass(frozen=True, slots=True)
class AuditDigests:
    """Makes digests. One process at a time does; another that interferes loses its turn, and changes nothing.

    `mark_log` and `see_log` raise the high-water marks of the log's size.
    """

    database: Database
    clock: Clock
    open_log: Callable[[], tuple[Log, LogSigner]]
    mark_log: Callable[[int], None]
    see_log: Callable[[Tx, int], None]

    def run(self) -> int:
        """Make the digests that are due; return how many. Raises Error(UNAVAILABLE), Error(STORAGE_FULL)."""
        self._append_pending()
        made = 0
        while self._is_due() and self._make():
            self._append_pending()
            made += 1
        return made

    def _is_due(self) -> bool:
        """Return whether the oldest event that no digest covers is of another day than today, in UTC."""
        oldest = events.oldest_after(self.database, digests.last_n(self.database))
        return oldest is not None and from_micros(oldest).date() != self.clock.now().date()

    def _make(self) -> bool:
        """Store a digest over the next events; False if another process has."""
        log, _ = self.open_log()
        since = log.size()
        with self.database.read() as tx:
            newest = digests.newest(tx)
        of, last_n = self._collected(newest.last_n if newest else 0)
        sequence = newest.sequence + 1 if newest else 1
        with self.database.write() as tx:
            if digests.newest(tx) != newest:
                return False
            parts = [_part(tx, sequence, *one) for one in of.items()]
            leaf = AuditDigestLeaf(
                sequence, digest_root(part.commitment for part in parts), iso(tx.now), _software()
            )
            digests.insert(tx, Digest(sequence, last_n, receipt.build(leaf), since, None))
            for part in parts:
                digests.insert_part(tx, part)
        return True

    def _collected(self, n: int) -> tuple[dict[str, "_Run"], int]:
        """Return the events after event `n` by organization, and the number of the last one."""
        of: dict[str, _Run] = defaultdict(_Run)
        count = 0
        while count < EVENTS_MAX:
            with self.database.read() as tx:
                page = events.after(tx, n, min(_PAGE, EVENTS_MAX - count))
            if not page:
                break
            for event in page:
                of[event.organization_id].add(event)
            count += len(page)
            n = page[-1].n
        return of, n

    def _append_pending(self) -> None:
        """Append the leaves of stored digests, once each."""
        with self.database.read() as tx:
            pending = digests.pending(tx)
        if not pending:
            return
        log, signer = self.open_log()
        signed = [(receipt.sign(one.statement or b"", signer), one.log_since) for one in pending]
        proven = log.append_proven(signed)
        size = max(one.size for one in proven)
        self.mark_log(size)
        with self.database.write(below_floor=True) as tx:
            for digest, at in zip(pending, proven, strict=True):
                digests.note_leaf(tx, digest.sequence, at.index)
            self.see_log(tx, max(at.index for at in proven) + 1)


class _Run:
    """The events of one organization in a digest, oldest first."""

    __slots__ = ("entries", "first_n", "last_at", "last_n")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.first_n = self.last_n = self.last_at = 0

    def add(self, event: Event) -> None:
        self.first_n = self.first_n or event.n
        self.last_n = event.n
        self.last_at = max(self.last_at, event.effective_at)
        self.entries.append(digests.entry_of(event.id, line_of(event)))


def line_of(event: Event) -> bytes:
    """Return an event's line; UNREADABLE, which no line is, if its row cannot be read."""
    try:
        return event.line()
    except ValueError:
        # It was not written by us. The digest covers it all the same: the day after must not wait for it.
        return UNREADABLE


def _part(tx: Tx, sequence: int, organization_id: str, run: _Run) -> Part:
    before = digests.newest_part(tx, organization_id)
    said = AuditPart(
        organization_id,
        before.said.number + 1 if before else 1,
        len(run.entries),
        events_root([entry.hash for entry in run.entries]),
        before.commitment if before else None,
    )
    salt = random_bytes(SALT_BYTES)
    packed = digests.pack(run.entries)
    return Part(said, sequence, run.first_n, run.last_n, run.last_at, salt, packed, None)


def _software() -> str:
    return f"tunewarden {__version__}"

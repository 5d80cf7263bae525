"""Checks the audit log's events against the digests in the log of the server, for all organizations.

What is checked, in this order: every digest in the log has its row, and every row its leaf; a digest's parts are
those that its leaf commits to; an organization's parts are all there; a part's hashes are those that it commits to;
each event of a part is there, and has the hash that the part keeps of it, or a later event says that the part expired;
and no event is older than those of the digests before the one that covers it.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tunewarden.audit import digests, events
from tunewarden.audit.digests import Digest, Part
from tunewarden.audit.events import Event, EventType
from tunewarden.db.database import Database, Tx
from tunewarden.transparency.audit_comparison import (
    BACKDATED,
    Expiries,
    first_backdated,
    first_difference,
    first_gone,
    oldest_allowed,
)
from tunewarden.transparency.audit_digests import line_of
from tunewarden.transparency.log import Log
from tunewarden_receipts import receipt
from tunewarden_receipts.audit_digest import AuditDigestLeaf, digest_root, events_root

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """What was found: `event` is the id of the first event that is missing, changed or inserted, where it is known."""

    what: str
    digest: int
    organization_id: str | None = None
    event: str | None = None


@dataclass(slots=True)
class Counts:
    """What was checked. `unproven` digests are not in the log yet: the runner appends them. `expired` are events that a retention period deleted; their hashes were checked."""

    digests: int = 0
    unproven: int = 0
    events: int = 0
    expired: int = 0
    undigested: int = 0


class Verification:
    """One check. `counts` is complete when `problems` ends."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database = database
        self._log = log
        self._before: dict[str, Part] = {}
        self._expiries: dict[str, Expiries] = defaultdict(Expiries)
        self._newest_at = 0  # of the events of the digests before, in microseconds
        self.counts = Counts()

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, by digest; nothing if all is as it was digested. Raises Error(UNAVAILABLE)."""
        leaves: dict[int, AuditDigestLeaf] = {}
        for leaf in self._leaves():
            if leaves.setdefault(leaf.sequence, leaf) is not leaf:
                yield Problem("the log has two digests with this number", leaf.sequence)
        last_n = 0
        for digest in self._rows():
            self.counts.digests += 1
            logged = leaves.pop(digest.sequence, None)
            problem = self._of_leaf(digest, logged)
            if problem is not None:
                yield problem
            if digest.statement is None:
                continue
            yield from self._of_parts(digest, last_n, logged)
            last_n = digest.last_n
        for sequence in sorted(leaves):
            yield Problem("the log has this digest, and the database does not", sequence)
        with self._database.read() as tx:
            self.counts.undigested = events.count_after(tx, last_n)
            older = self._older_than_the_last(tx, last_n)
            for event in events.of_type_after(tx, EventType.AUDIT_EXPIRED, last_n):
                self._expiries[event.organization_id].add_line(line_of(event))
            now = tx.now_micros
        if older is not None:
            organization_id, event_id = older
            yield Problem(BACKDATED, self.counts.digests + 1, organization_id, event_id)
        for organization_id, expiries in self._expiries.items():
            for what, sequence, event_id in expiries.unjustified(now):
                yield Problem(what, sequence, organization_id, event_id)

    def _older_than_the_last(self, tx: Tx, last_n: int) -> tuple[str, str] | None:
        """Return organization and id of the first event without a digest that is older than the last one."""
        return events.first_older(tx, last_n, oldest_allowed(self._newest_at))

    def _leaves(self) -> Iterator[AuditDigestLeaf]:
        """Yield the digests in the log, whose entries are verified against the checkpoint."""
        for _, entry in self._log.entries():
            facts = receipt.parse_entry(entry)
            if isinstance(facts, AuditDigestLeaf):
                yield facts

    def _rows(self) -> Iterator[Digest]:
        sequence = 0
        while True:
            with self._database.read() as tx:
                page = digests.after(tx, sequence, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            sequence = page[-1].sequence

    def _of_leaf(self, digest: Digest, leaf: AuditDigestLeaf | None) -> Problem | None:
        """Compare a digest's row with its leaf."""
        if digest.statement is None:
            return Problem(
                "the database was restored from a copy that is older than this digest: its events are lost",
                digest.sequence,
            )
        if leaf is None:
            if digest.log_index is None:
                self.counts.unproven += 1
                return None
            return Problem("the database has this digest, and the log does not", digest.sequence)
        if receipt.build(leaf) != digest.statement:
            return Problem("the database has another statement than the log", digest.sequence)
        return None

    def _of_parts(
        self, digest: Digest, after_n: int, leaf: AuditDigestLeaf | None
    ) -> Iterator[Problem]:
        with self._database.read() as tx:
            parts = digests.parts_in(tx, digest.sequence)
            found = events.within(tx, after_n + 1, digest.last_n)
        if leaf is not None and digest_root(part.commitment for part in parts) != leaf.root:
            yield Problem("its parts are not those that the log commits to", digest.sequence)
        times = [(event.id, event.effective_at) for event in found]
        older = first_backdated(times, self._newest_at)
        if older is not None:
            whose = next(event.organization_id for event in found if event.id == older)
            yield Problem(BACKDATED, digest.sequence, whose, older)
        expired = (part.last_at for part in parts if part.expired_at is not None)
        self._newest_at = max(self._newest_at, *(at for _, at in times), *expired, 0)
        of: dict[str, list[Event]] = defaultdict(list)
        for event in found:
            of[event.organization_id].append(event)
        for part in parts:
            organization_id = part.said.organization_id
            yield from self._of_part(part, leaf, of.pop(organization_id, []))
        for organization_id, added in of.items():
            what = "an event was inserted"
            yield Problem(what, digest.sequence, organization_id, added[0].id)

    def _of_part(
        self, part: Part, leaf: AuditDigestLeaf | None, found: list[Event]
    ) -> Iterator[Problem]:
        organization_id = part.said.organization_id
        before = self._before.get(organization_id)
        self._before[organization_id] = part
        expected = (before.said.number + 1, before.commitment) if before else (1, None)
        if (part.said.number, part.said.previous) != expected:
            yield Problem("a part before this one is missing", part.sequence, organization_id)
        entries = part.entries()
        is_whole = len(entries) == part.said.events
        if not is_whole or events_root([one.hash for one in entries]) != part.said.root:
            yield Problem(
                "the kept hashes are not those that the log commits to",
                part.sequence,
                organization_id,
            )
        self.counts.events += len(found)
        lines = [line_of(event) for event in found]
        there = [digests.entry_of(event.id, line) for event, line in zip(found, lines, strict=True)]
        expiries = self._expiries[organization_id]
        for line in lines:
            expiries.add_line(line)
        gone = first_gone(entries, there)
        if part.expired_at is not None and gone is not None:
            self.counts.expired += max(len(entries) - len(found), 0)
            digested_at = None if leaf is None else datetime.fromisoformat(leaf.digested_at)
            expiries.add_gone(part.said.number, part.sequence, gone, digested_at)
        problem = first_difference(entries, there, may_be_gone=part.expired_at is not None)
        if problem is not None:
            what, event_id = problem
            yield Problem(what, part.sequence, organization_id, event_id)

"""The end of a case: once every member is deleted (D8), one leaf of the log that commits to all of them.

    state of a case   COMMITTED          STATED             FINISHED
    all are deleted   -> STATED
    its leaf is there                    -> FINISHED
    a crash           stays              stays              stays
    its leaf is       -> FINISHED        -> FINISHED
     found (D10)

1. One transaction stores the statement, byte for byte, and the log's size.
2. The leaf is appended.
3. Another transaction stores where it is, and the receipt.

A crash before 1 leaves nothing; after it, 2 and 3 are repeated with the same bytes, which the log has once at most. Any
number of processes may do it at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from tunewarden import __version__, audit
from tunewarden.clock import Clock, from_micros, iso
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import case_rows
from tunewarden.deletion.case_rows import Case
from tunewarden.identity import keys
from tunewarden.registry import restore_marks
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType
from tunewarden_receipts import receipt
from tunewarden_receipts.deletion_case import CaseLeaf, members_commitment
from tunewarden_receipts.leaf import Disclosure

_PAGE = 200


class CaseStage(Enum):
    """The state of a case."""

    COMMITTED = auto()  # members are being deleted
    STATED = auto()  # all are deleted; the statement of the summary is stored
    FINISHED = auto()  # the answer may be 200


def stage_of(case: Case) -> CaseStage:
    """Return the state of a case, from its row."""
    if case.finished_at is not None:
        return CaseStage.FINISHED
    return CaseStage.COMMITTED if case.statement is None else CaseStage.STATED


@dataclass(frozen=True, slots=True)
class CaseSummaries:
    """Logs the summaries of cases. `mark_log` raises the high-water mark of the log's size."""

    database: Database
    clock: Clock
    open_log: Callable[[], tuple[Log, LogSigner]]
    mark_log: Callable[[int], None]

    def finish(self, case_n: int) -> Case:
        """Log the summary of a case all of whose members are deleted, once; return the case, finished."""
        case = case_rows.by_n(self.database, case_n)
        if stage_of(case) is CaseStage.COMMITTED:
            case = self._state(case)
        if stage_of(case) is CaseStage.STATED:
            case = self._log(case)
        return case

    def _state(self, case: Case) -> Case:
        since = self.open_log()[0].size()
        statement = receipt.build(self._leaf(case))
        with self.database.write(below_floor=True) as tx:
            case_rows.note_statement(tx, case.n, statement, since)
        return case_rows.by_n(self.database, case.n)

    def _leaf(self, case: Case) -> CaseLeaf:
        shown = disclosure_of(case)
        held = shown.commitments()
        members = members_commitment(case.salt, self._entries(case))
        if members.count != case.size:
            raise RuntimeError("a case is finished when all of its members are deleted")
        return CaseLeaf(
            case_id=case.id,
            root=members.root,
            artifact_id=held.get("artifact_id"),
            organization_id=held["organization_id"],
            requested_by=held["requested_by"],
            count=members.count,
            hidden=case.hidden,
            requested_at=iso(from_micros(case.requested_at)),
            finished_at=iso(self.clock.now()),
            software=f"tunewarden {__version__}",
        )

    def _entries(self, case: Case) -> list[bytes]:
        """Return the leaf hash of each member's entry of the log, page by page: receipts are large."""
        found: list[bytes] = []
        after = 0
        while True:
            with self.database.read() as tx:
                page = case_rows.receipts_of(tx, case.n, after=after, limit=_PAGE)
            if not page:
                return found
            found += [receipt.entry_hash(stored) for _, stored in page]
            after = page[-1][0]

    def _log(self, case: Case) -> Case:
        assert case.statement is not None, "it is stated"
        assert case.log_since is not None, "it was written with the statement"
        log, signer = self.open_log()
        envelope = receipt.sign(case.statement, signer)
        [at] = log.append_proven([(envelope, case.log_since)])
        self.mark_log(at.size)
        bundle = receipt.bundle(at.entry, at.index, at.proof, at.checkpoint, disclosure_of(case))
        with self.database.write(below_floor=True) as tx:
            record_end(tx, case, at.index, bundle)
            restore_marks.see_log(tx, at.index + 1)
        return case_rows.by_n(self.database, case.n)


def disclosure_of(case: Case) -> Disclosure:
    """Return the values that the leaf of a case commits to."""
    return Disclosure(
        salt=case.salt.hex(),
        artifact_id=case.origin_id,
        organization_id=case.organization_id,
        requested_by=case.requested_by,
    )


def record_end(tx: Tx, case: Case, index: int, bundle: bytes) -> None:
    """Store that a case is finished, once."""
    if case_rows.finish(tx, case.n, index, bundle):
        audit.record(
            tx,
            audit.EventType.CASE_FINISHED,
            organization_id=case.organization_id,
            actor=keys.actor_of(tx, case.requested_by, case.request_id or None),
            resource_id=case.id,
            members=case.size,
            hidden=case.hidden,
        )
        is_partial = case.hidden > 0
        outbox.publish(
            tx,
            case.organization_id,
            WebhookEventType.CASE_PARTIAL if is_partial else WebhookEventType.CASE_COMPLETED,
            case.id,
        )

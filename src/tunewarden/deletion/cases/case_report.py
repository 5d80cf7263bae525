"""The report of a case: what was found, deleted and held, what was not reached, the receipts, and how to check them.

Made from rows and receipts when it is asked for; each receipt is verified against the log's key first. It says what was
done and seen, and names by word what no deletion reaches (I17, I18). Times are RFC 3339 text, as in receipts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from msgspec import Struct

from tunewarden import __version__
from tunewarden.clock import Clock, from_micros, iso
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import case_rows, records
from tunewarden.deletion.case_rows import Case, CaseStatus
from tunewarden.deletion.cases import not_reached
from tunewarden.deletion.cases.not_reached import NotReached
from tunewarden.deletion.records import Deletion
from tunewarden.engines.port import Eviction
from tunewarden.identity.policy import Caller
from tunewarden.registry import export_rows, holds
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden_receipts.key_chain import KeyChain
from tunewarden_receipts.leaf import NOT_CHECKED, DeletionLeaf
from tunewarden_receipts.receipt import ReceiptError, VerifiedReceipt

PAGE = 200
UNSWAPPABLE = "unswappable"
REASONS_GONE = (
    "Holds that are listed were lifted before. Why they were placed cannot be told any more: a reason is sealed under the"
    " key of what it is about, and went with that key."
)
NOT_SEEN = frozenset({Eviction.RESTARTED.value, Eviction.LEASE_ENDED.value})


class ReportedReceipt(Struct, frozen=True):
    """A receipt: its path, the SHA-256 of its bytes, its leaf, and whether it verified when the report was made."""

    path: str
    sha256: str
    log_index: int
    is_valid: bool


class ReportedExport(Struct, frozen=True):
    """A copy of the plain weights that left the server before."""

    exported_at: str
    exported_by: str


class ReportedHold(Struct, frozen=True):
    """A hold that was on a member, and lifted before the case."""

    id: str
    artifact: str
    placed_at: str
    placed_by: str
    lifted_at: str | None
    lifted_by: str | None


class ReportedMember(Struct, frozen=True):
    """A member of the case. Times of steps that are not done yet are null.

    `engines` are what each said that may have had the weights. `memory`: whether memory with its plaintext could be swapped.
    """

    deletion: str
    kind: str
    artifact: str
    status: Literal["deleting", "deleted", "erased"]
    fenced_at: str | None
    evicted_at: str | None
    key_erased_at: str | None
    deleted_at: str | None
    blobs_erased_at: str | None
    engines: list[str]
    key: str | None
    blobs: int | None
    bytes: int | None
    memory: str | None
    exports: list[ReportedExport]
    receipt: ReportedReceipt | None
    second_log_index: int | None


class Found(Struct, frozen=True):
    """What the case is of: its members, by kind, and those of other projects, which stay."""

    members: int
    models: int
    files: int
    hidden: int


class Held(Struct, frozen=True):
    """What was not deleted, and why; and the holds that had to be lifted before."""

    hidden: int
    why: str
    lifted: list[ReportedHold]


class Verification(Struct, frozen=True):
    """What the receipts are checked against, and how."""

    log: str
    log_size: int
    log_key: str
    log_key_sha256: str
    receipts: int
    valid: int
    how: list[str]


class CaseReport(Struct, frozen=True):
    """The report of a case. `summary` is the receipt of the leaf that commits to all members; null while it goes on."""

    object: Literal["deletion.case.report"]
    case: str
    status: CaseStatus
    file: str | None
    requested_at: str
    requested_by: str
    finished_at: str | None
    made_at: str
    software: str
    found: Found
    members: list[ReportedMember]
    held: Held
    not_reached: list[NotReached]
    summary: ReportedReceipt | None
    verification: Verification


@dataclass(frozen=True, slots=True)
class CaseReports:
    """Makes reports."""

    database: Database
    clock: Clock
    open_log: Callable[[], tuple[Log, LogSigner]]

    def of(self, caller: Caller, case_id: str) -> CaseReport:
        """Return the report of a case of the caller's organization. Raises Error(FORBIDDEN, NOT_FOUND)."""
        case = case_rows.find_own(self.database, caller, case_id)
        log, signer = self.open_log()
        chain = signer.chain
        key = chain.newest if case.log_index is None else chain.of_entry(case.log_index)
        pem = key.pem()
        lifted: list[ReportedHold] = []
        members = list(self._members(case, chain, lifted))
        receipts = [one.receipt for one in members if one.receipt is not None]
        summary = _receipt(
            f"/v1/deletion_cases/{case.id}/receipt",
            case.receipt,
            case.log_index,
            _verified(case.receipt, chain),
        )
        receipts += [] if summary is None else [summary]
        return CaseReport(
            object="deletion.case.report",
            case=case.id,
            status=case.status,
            file=case.origin_id,
            requested_at=iso(from_micros(case.requested_at)),
            requested_by=case.requested_by,
            finished_at=_time(case.finished_at),
            made_at=iso(self.clock.now()),
            software=f"tunewarden {__version__}",
            found=Found(
                case.size,
                sum(one.kind == ArtifactKind.MODEL for one in members),
                sum(one.kind == ArtifactKind.FILE for one in members),
                case.hidden,
            ),
            members=members,
            held=_held(case, lifted),
            not_reached=list(_not_reached(case, members)),
            summary=summary,
            verification=Verification(
                log=signer.name,
                log_size=log.size(),
                log_key=pem.decode("ascii"),
                log_key_sha256=sha256(pem).hexdigest(),
                receipts=len(receipts),
                valid=sum(one.is_valid for one in receipts),
                how=list(_how(case)),
            ),
        )

    def _members(
        self, case: Case, chain: KeyChain, lifted: list[ReportedHold]
    ) -> Iterator[ReportedMember]:
        """Yield the members, page by page: receipts are large. Adds the holds that were on them to `lifted`."""
        after = 0
        while True:
            with self.database.read() as tx:
                page = records.of_case(tx, case.n, after=after, limit=PAGE)
                exports = {one.n: _exports(tx, one) for one in page}
                for one in page:
                    lifted += _holds(tx, one)
            for deletion in page:
                yield _member(deletion, exports[deletion.n], chain)
            if not page:
                return
            after = page[-1].n


def _member(deletion: Deletion, exports: list[ReportedExport], chain: KeyChain) -> ReportedMember:
    path = f"/v1/deletions/{deletion.id}/receipt"
    is_erased = deletion.blobs_erased_at is not None
    key, blobs = deletion.key_report, deletion.blobs_report
    verified = _verified(deletion.receipt, chain)
    return ReportedMember(
        deletion=deletion.id,
        kind=deletion.kind,
        artifact=deletion.artifact_id,
        status="erased" if is_erased else "deleted" if deletion.is_deleted else "deleting",
        fenced_at=_time(deletion.fenced_at),
        evicted_at=_time(deletion.evicted_at),
        key_erased_at=_time(deletion.key_erased_at),
        deleted_at=_time(deletion.deleted_at),
        blobs_erased_at=_time(deletion.blobs_erased_at),
        engines=[f"{one.engine}: {one.how}" for one in deletion.evict_report or ()],
        key=None if key is None else f"{key.method}, {key.assurance}",
        blobs=None if blobs is None else blobs.count,
        bytes=None if blobs is None else blobs.size_bytes,
        memory=_memory(verified),
        exports=exports,
        receipt=_receipt(path, deletion.receipt, deletion.log_index, verified),
        second_log_index=deletion.blobs_log_index,
    )


def _verified(stored: bytes | None, chain: KeyChain) -> VerifiedReceipt | None:
    """Return what a receipt proves; None without one, and for one that is not valid."""
    if stored is None:
        return None
    try:
        return chain.verified(stored)
    except ReceiptError:
        return None


def _receipt(
    path: str, stored: bytes | None, log_index: int | None, verified: VerifiedReceipt | None
) -> ReportedReceipt | None:
    if stored is None or log_index is None:
        return None
    is_valid = verified is not None and verified.index == log_index
    return ReportedReceipt(path, sha256(stored).hexdigest(), log_index, is_valid)


def _memory(verified: VerifiedReceipt | None) -> str | None:
    facts = None if verified is None else verified.facts
    return facts.memory if isinstance(facts, DeletionLeaf) else None


def _exports(tx: Tx, deletion: Deletion) -> list[ReportedExport]:
    return [
        ReportedExport(iso(from_micros(one.exported_at)), one.exported_by)
        for one in export_rows.of(tx, deletion.artifact_n)
    ]


def _holds(tx: Tx, deletion: Deletion) -> Iterator[ReportedHold]:
    for one in holds.ever_on(tx, deletion.artifact_n):
        yield ReportedHold(
            one.id,
            deletion.artifact_id,
            iso(from_micros(one.placed_at)),
            one.placed_by,
            _time(one.lifted_at),
            one.lifted_by,
        )


def _held(case: Case, lifted: list[ReportedHold]) -> Held:
    why = (
        "They are in projects that who asked may not see. An Owner with a key of those projects deletes them."
        if case.hidden
        else "Nothing that belongs to the case was left: a hold on any member would have refused all of it."
    )
    if lifted:
        why += f" {REASONS_GONE}"
    return Held(case.hidden, why, lifted)


def _not_reached(case: Case, members: Sequence[ReportedMember]) -> Iterator[NotReached]:
    yield from not_reached.counted(case.hidden, sum(len(one.exports) for one in members))
    yield NotReached(
        "sealed files not erased yet",
        sum(one.status != "erased" for one in members),
        "No key opens them once their artifact is deleted. They are erased in the background; make the report again.",
    )
    yield NotReached(
        "memory of processes that have ended",
        _count(how in NOT_SEEN for one in members for how in _hows(one)),
        "Engines that ended, or lost their lease, before they said that they overwrote the weights. The operating system"
        " clears such memory before it gives it to another process.",
    )
    yield NotReached(
        "memory that may be swapped to a disk",
        _count(one.memory not in {None, UNSWAPPABLE, NOT_CHECKED} for one in members),
        "The operator accepted that. Overwriting memory does not reach what was swapped.",
    )
    yield from not_reached.unknown()


def _hows(member: ReportedMember) -> list[str]:
    return [one.rpartition(": ")[2] for one in member.engines]


def _count(found: Iterable[bool]) -> int:
    return sum(found)


def _how(case: Case) -> Iterator[str]:
    yield (
        "Get the log's public key once, from a source that you trust: /.well-known/tunewarden-log-key of the server. Its"
        " SHA-256 is above."
    )
    yield "Get each receipt from its path, with a key of the organization; its SHA-256 is beside it."
    yield (
        "tunewarden-receipts verify receipt.json --log-key log.pem: offline, without the server. It checks the signature, the"
        " place in the log, and that the names in the receipt are those that the log's entry commits to."
    )
    yield (
        "If the log's key was rotated, a receipt may be of an earlier or later key: --hand-overs with /log/hand-overs"
        " proves each later one."
    )
    yield (
        "The summary commits to the receipts of all members, by number and Merkle root: tunewarden_receipts.cases"
        ".check_members tells whether one is missing."
        if case.finished_at is not None
        else "The summary, which commits to all members, follows when the case is finished."
    )
    yield (
        "Two checkpoints of the log, an older one that you kept and /log/checkpoint now, show that nothing was taken out"
        " in between."
    )


def _time(micros: int | None) -> str | None:
    return None if micros is None else iso(from_micros(micros))

"""The numbered, idempotent steps of deletions; the only caller of erasing functions.

A step runs for several deletions at once, each with its own facts and leaf, because the cost is
shared: one rewrite of a shard, one signed checkpoint and one transaction for all.
A failed step may be done for some of them.

The results of D4 to D6 are committed in one transaction before the leaf that repeats them (D7): a crash
before that repeats them, which is cheap, and a crash after it finds the same facts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from msgspec.structs import asdict, replace

from tunewarden import __version__, audit
from tunewarden.artifacts.blobs import ErasableBlobs
from tunewarden.artifacts.keyring import Keyring
from tunewarden.clock import Clock, from_micros, iso, to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import ending, eviction, records
from tunewarden.deletion.disclosure import opened_by, read_disclosures
from tunewarden.deletion.eviction import EnginesOf
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.reports import BlobsReport, KeyReport
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import jobs
from tunewarden.metrics import families, recording
from tunewarden.registry import (
    artifacts,
    restore_marks,
)
from tunewarden.registry.artifacts import Artifact
from tunewarden.serving.fence import Fence
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden_receipts import receipt
from tunewarden_receipts.facts import ErasedKey
from tunewarden_receipts.leaf import (
    NOT_CHECKED,
    BlobsErasedLeaf,
    DeletionLeaf,
    Disclosure,
    ErasedBlobs,
)

# What a deletion cannot reach; stated in every receipt (I17).
RESIDUALS = (
    "copies of sealed blobs and of the database in backups: no key opens them",
    "memory of processes that have ended: left to the operating system",
)

JOB_POLL_SECONDS = 0.02

# The stored results of D4 and D5.
FOUND_BEFORE_D6 = ("fenced_at", "fence_report", "evicted_at", "evict_report")
FOUND_BEFORE_D7 = (*FOUND_BEFORE_D6, "key_erased_at", "key_report", "statement")


@dataclass(frozen=True, slots=True)
class _LeafToLog:
    """A leaf's statement, the index from which the log is searched for it, and its receipt's disclosure."""

    statement: bytes
    since: int
    shown: Disclosure | None


@dataclass(frozen=True, slots=True)
class Steps:
    """The places that a deletion reaches. `open_log` is called when the log is first needed."""

    database: Database
    clock: Clock
    fence: Fence
    engines_of: EnginesOf
    keyring: Keyring
    blobs: ErasableBlobs
    open_log: Callable[[], tuple[Log, LogSigner]]
    mark_log: Callable[[int], None]
    fence_seconds: float
    evict_seconds: float
    # By artifact number: the receipt's statement about memory that held its plaintext, one of `leaf.MEMORY`.
    memory: Callable[[Tx, int], str] = lambda _tx, _n: NOT_CHECKED
    # By a model's id: whether this process served requests on it whose use is not written yet.
    has_unwritten_use: Callable[[str], bool] = lambda _: False

    def is_served(self, model: Artifact) -> bool:
        """Return whether a model is being used now, by a process of this host, or was a moment ago by this one."""
        return self.fence.is_held(model.n) or self.has_unwritten_use(model.id)

    def log_size(self) -> int:
        """Return the log's size: a new deletion's leaf will follow it."""
        return self.open_log()[0].size()

    def do(self, step: Step, deletions: Sequence[Deletion]) -> list[Deletion]:
        """Run one step of each; return them with its results. Raises Error(UNAVAILABLE)."""
        todo = {
            Step.FENCE: self._fence,
            Step.EVICT: self._evict,
            Step.ERASE_KEY: self._erase_keys,
            Step.LOG: self._log,
            Step.FINISH: self._finish,
            Step.ERASE_BLOBS: self._erase_blobs,
        }
        return todo[step](deletions)

    def note(self, *deletions: Deletion) -> None:
        """Store the results of D4 and D5, so that another process can continue from there.

        If a power cut undoes this write, they are repeated.
        """
        with self.database.write(survives=False, below_floor=True) as tx:
            records.record_facts(tx, deletions, *FOUND_BEFORE_D6)

    def _now(self) -> int:
        return to_micros(self.clock.now())

    def _fence(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D4: no worker serves the model any more; one that keeps the guard is killed."""
        fenced = []
        needed = self._needed(deletions)  # nothing new can need them after D3
        for deletion in deletions:
            if deletion.n in needed:
                self._await_jobs(deletion)
            with recording.timed(families.FENCE_WAIT):
                workers = self.fence.fence(deletion.artifact_n, within_seconds=self.fence_seconds)
            for worker in workers:
                recording.count(families.FENCE_ENDINGS, worker.how)
            fenced.append(replace(deletion, fenced_at=self._now(), fence_report=tuple(workers)))
        return fenced

    def _await_jobs(self, deletion: Deletion) -> None:
        """Wait until no trainer reads the artifact: a forced deletion cancelled the jobs (D3). Raises Error(UNAVAILABLE)."""
        deadline = self.clock.monotonic() + self.fence_seconds
        while self._needed([deletion]):
            if self.clock.monotonic() > deadline:
                raise Error(
                    Kind.UNAVAILABLE,
                    "A cancelled fine-tuning job has not let go of the artifact yet.",
                )
            self.clock.sleep(JOB_POLL_SECONDS)

    def _needed(self, deletions: Sequence[Deletion]) -> set[int]:
        """Return the numbers of the deletions whose artifacts a job needs."""
        with self.database.read() as tx:
            needed = jobs.needed_among(tx, [one.artifact_n for one in deletions])
        return {one.n for one in deletions if one.artifact_n in needed}

    def _evict(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D5: every engine that could hold the weights has evicted them."""
        reports = eviction.evict(
            self.database, self.engines_of, deletions, within_seconds=self.evict_seconds
        )
        now = self._now()
        return [
            replace(one, evicted_at=now, evict_report=report)
            for one, report in zip(deletions, reports, strict=True)
        ]

    def _erase_keys(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D6: no key decrypts the models' blobs any more."""
        erased = self.keyring.erase_many([deletion.key_id for deletion in deletions])
        now = self._now()
        return [
            replace(deletion, key_erased_at=now, key_report=KeyReport.of(key))
            for deletion, key in zip(deletions, erased, strict=True)
        ]

    def _log(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D7: append the statements as leaves of the log, under a signed checkpoint."""
        stated = self._state(deletions)
        appended = self._append(
            [_LeafToLog(one.statement or b"", one.log_since, shown) for one, shown in stated]
        )
        return [
            replace(deletion, log_index=index, logged_at=self._now(), receipt=bundle)
            for (deletion, _), (index, bundle) in zip(stated, appended, strict=True)
        ]

    def _state(self, deletions: Sequence[Deletion]) -> list[tuple[Deletion, Disclosure | None]]:
        """Store the results of D4 to D6 and, byte for byte, the leaf's statement.

        Returns each with its receipt's disclosure: None for a statement by a server before 0.1.1.
        """
        stated: list[tuple[Deletion, Disclosure | None]] = []
        said = []
        with self.database.write(below_floor=True) as tx:
            for one, shown in zip(deletions, read_disclosures(tx, deletions), strict=True):
                if one.statement:
                    stated.append((one, opened_by(one.statement, shown)))
                    continue
                statement = receipt.build(_leaf(one, shown, self.memory(tx, one.artifact_n)))
                said.append(replace(one, statement=statement))
                stated.append((said[-1], shown))
            records.record_facts(tx, said, *FOUND_BEFORE_D7)
            _see_keyring(tx, deletions)
        return stated

    def _finish(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D8: set each model to `deleted`, and store its receipt."""
        with self.database.write(below_floor=True) as tx:
            ended = [replace(one, deleted_at=tx.now_micros) for one in deletions]
            ending.end(tx, ended)
            restore_marks.see_log(tx, max((one.log_index or 0) + 1 for one in ended))
        return ended

    def _erase_blobs(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D9: erase the sealed files in every version, and append a second leaf."""
        # Erase again even if already reported: a restore may have brought the files back.
        reported = self._report(deletions, [self._erase_files(deletion) for deletion in deletions])
        # A restored database finds its leaf in the log (D10), and appends no other.
        unlogged = [one for one in reported if one.blobs_log_index is None]
        appended = self._append([_blobs_erased(deletion) for deletion in unlogged])
        found = {one.n: index for one, (index, _) in zip(unlogged, appended, strict=True)}
        reported = [
            replace(one, blobs_log_index=found.get(one.n, one.blobs_log_index)) for one in reported
        ]
        with self.database.write(below_floor=True) as tx:
            for deletion in reported:
                _record_blobs_erased(tx, deletion)
            restore_marks.see_log(tx, max((one.blobs_log_index or 0) + 1 for one in reported))
            erased_at = tx.now_micros
        return [replace(deletion, blobs_erased_at=erased_at) for deletion in reported]

    def _erase_files(self, deletion: Deletion) -> BlobsReport:
        """Erase the blobs in the rows, and any others under the model's prefix."""
        erased = [self.blobs.erase(name) for name in self.blobs.names(f"{deletion.internal_id}/")]
        return BlobsReport(
            count=len(erased),
            versions=sum(blob.versions for blob in erased),
            size_bytes=sum(blob.bytes for blob in erased),
            erased_at=iso(self.clock.now()),
            software=_software(),
        )

    def _report(
        self, deletions: Sequence[Deletion], reports: Sequence[BlobsReport]
    ) -> list[Deletion]:
        """Store each second leaf's statement before it is appended."""
        if all(deletion.blobs_report is not None for deletion in deletions):
            return list(deletions)
        since = self.log_size()
        reported = []
        with self.database.write(below_floor=True) as tx:
            for deletion, report in zip(deletions, reports, strict=True):
                if deletion.blobs_report is None:
                    found = replace(deletion, blobs_report=report, blobs_log_since=since)
                    records.record_facts(tx, [found], "blobs_report", "blobs_log_since")
                    reported.append(found)
                else:
                    reported.append(deletion)
        return reported

    def _append(self, leaves: Sequence[_LeafToLog]) -> list[tuple[int, bytes]]:
        """Append each signed statement, once; return its index and receipt."""
        if not leaves:
            return []
        log, signer = self.open_log()
        envelopes = [receipt.sign(one.statement, signer) for one in leaves]
        proven = log.append_proven(
            [(envelope, one.since) for envelope, one in zip(envelopes, leaves, strict=True)]
        )
        self.mark_log(max(one.size for one in proven))
        return [
            (at.index, receipt.bundle(at.entry, at.index, at.proof, at.checkpoint, one.shown))
            for at, one in zip(proven, leaves, strict=True)
        ]


def _see_keyring(tx: Tx, deletions: Sequence[Deletion]) -> None:
    """Store the newest generation of each shard that these deletions have seen."""
    newest: dict[int, int] = {}
    for one in deletions:
        assert one.key_report is not None, "D6 comes before D7"
        shard = int(one.key_report.shard)
        newest[shard] = max(newest.get(shard, 0), one.key_report.generation_after)
    for shard, generation in newest.items():
        restore_marks.see_keyring(tx, shard, generation)


def _record_blobs_erased(tx: Tx, deletion: Deletion) -> None:
    artifacts.note_blobs_erased(tx, deletion.artifact_n)
    erased = replace(deletion, blobs_erased_at=tx.now_micros)
    records.record_facts(tx, [erased], "blobs_log_index", "blobs_erased_at")
    audit.record(
        tx,
        audit.EventType.BLOBS_ERASED,
        organization_id=deletion.organization_id,
        actor=audit.SERVER,
        resource_id=deletion.artifact_id,
        deletion=deletion.id,
    )


def _blobs_erased(deletion: Deletion) -> _LeafToLog:
    """Return the second leaf's statement."""
    assert deletion.blobs_report is not None, "written before"
    assert deletion.blobs_log_since is not None, "written with the report"
    report = deletion.blobs_report
    shown = Disclosure(
        salt=deletion.salt.hex(),
        manifest_sha256=deletion.manifest_sha256,
        erased=ErasedBlobs(report.count, report.versions, report.size_bytes),
        failures=(),
    )
    leaf = BlobsErasedLeaf.of(
        shown,
        deletion_id=deletion.id,
        internal_id=deletion.internal_id,
        erased_at=report.erased_at,
        software=report.software,
    )
    return _LeafToLog(receipt.build(leaf), deletion.blobs_log_since, shown)


def _leaf(deletion: Deletion, shown: Disclosure, memory: str) -> DeletionLeaf:
    if deletion.key_report is None:
        raise RuntimeError("D6 comes before D7")
    return DeletionLeaf.of(
        shown,
        deletion_id=deletion.id,
        internal_id=deletion.internal_id,
        requested_at=_time(deletion.requested_at),
        committed_at=_time(deletion.requested_at),
        fenced_at=_time(deletion.fenced_at),
        evicted_at=_time(deletion.evicted_at),
        key_erased_at=_time(deletion.key_erased_at),
        epoch=deletion.epoch,
        key=ErasedKey(**asdict(deletion.key_report)),
        memory=memory,
        residuals=RESIDUALS,
        software=_software(),
        kind=deletion.kind,
    )


@lru_cache(maxsize=64)  # most times are the same for a whole group
def _time(micros: int | None) -> str:
    if micros is None:
        raise RuntimeError("a step that is done has a time")
    return iso(from_micros(micros))


def _software() -> str:
    return f"tunewarden {__version__}"

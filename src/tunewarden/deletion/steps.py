"""The numbered steps of deletions; the only caller of what erases. Each may be repeated.

A step is done for several deletions at once, each with its own facts and leaf, because the cost is
in what they share: a shard is rewritten, a checkpoint signed and a transaction committed once for all.
A step that fails may be done for some of them.

What D4 to D6 find is committed in one transaction before the leaf that repeats it (D7): a crash
before that runs them again, which is cheap, and a crash after it finds the same facts again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from tunewarden import __version__, audit
from tunewarden.artifacts.blobs import ErasableBlobs
from tunewarden.clock import Clock, from_micros, iso, to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import facts, protocol, receipt, records
from tunewarden.deletion.log import Log
from tunewarden.deletion.log_key import LogSigner
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden.registry import artifacts, files, seen
from tunewarden.registry.artifacts import ArtifactKind, SealedBlob, State
from tunewarden.serving.engine import Evicting
from tunewarden.serving.fence import Fence

# What a deletion cannot reach, said in every receipt (I17).
RESIDUALS = (
    "copies of sealed blobs and of the database in backups: no key opens them",
    "memory of processes that have ended: left to the operating system",
)


class ErasableKeyring(Protocol):
    """The keyring as deletion sees it."""

    def erase_many(self, key_ids: Sequence[str]) -> Sequence[Any]:
        """Erase keys for good; returns an `artifacts.keyring.ErasedKey` for each."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The places that a deletion reaches. `open_log` is called once the log is needed."""

    database: Database
    clock: Clock
    fence: Fence
    engines: Sequence[Evicting]
    keyring: ErasableKeyring
    blobs: ErasableBlobs
    open_log: Callable[[], tuple[Log, LogSigner]]
    mark_log: Callable[[int], None]
    fence_seconds: float
    evict_seconds: float

    def log_size(self) -> int:
        """Return the log's size: a deletion's leaf will not stand before it."""
        return self.open_log()[0].size()

    def do(self, step: Step, deletions: Sequence[Deletion]) -> list[Deletion]:
        """Do one step of each; return them with what was found. Raises Error(UNAVAILABLE)."""
        todo = {
            Step.FENCE: self._fence,
            Step.EVICT: self._evict,
            Step.ERASE_KEY: self._erase_keys,
            Step.LOG: self._log,
            Step.FINISH: self._finish,
            Step.ERASE_BLOBS: self._erase_blobs,
        }
        return todo[step](deletions)

    def note(self, deletion: Deletion) -> None:
        """Write down what D4 and D5 found, so that another may go on from there.

        If a power cut takes it back, they are done again.
        """
        with self.database.write(survives=False) as tx:
            records.record_facts(
                tx,
                deletion,
                fenced_at=deletion.fenced_at,
                fence_report=deletion.fence_report,
                evicted_at=deletion.evicted_at,
                evict_report=deletion.evict_report,
            )

    def _now(self) -> int:
        return to_micros(self.clock.now())

    def _fence(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D4: nobody serves the model any more; a worker that holds on is killed."""
        fenced = []
        for deletion in deletions:
            workers = self.fence.fence(deletion.artifact_n, within_seconds=self.fence_seconds)
            report = json.dumps([asdict(worker) for worker in workers])
            fenced.append(replace(deletion, fenced_at=self._now(), fence_report=report))
        return fenced

    def _evict(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D5: every engine that could hold the weights has let go of them. No engine holds files."""
        evicted = []
        for deletion in deletions:
            holding = self.engines if deletion.kind == ArtifactKind.MODEL else ()
            found = [
                engine.evict(deletion.internal_id, within_seconds=self.evict_seconds)
                for engine in holding
            ]
            report = json.dumps([asdict(engine) for engine in found])
            evicted.append(replace(deletion, evicted_at=self._now(), evict_report=report))
        return evicted

    def _erase_keys(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D6: no key opens the models' blobs any more."""
        erased = self.keyring.erase_many([deletion.key_id for deletion in deletions])
        now = self._now()
        return [
            replace(deletion, key_erased_at=now, key_report=json.dumps(_key_report(key)))
            for deletion, key in zip(deletions, erased, strict=True)
        ]

    def _log(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D7: what was done is a leaf of the log, under a signed checkpoint."""
        stated = self._state(deletions)
        appended = self._append([(one.statement or b"", one.log_since) for one in stated])
        return [
            replace(deletion, log_index=index, receipt=bundle)
            for deletion, (index, bundle) in zip(stated, appended, strict=True)
        ]

    def _state(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """Write down what D4 to D6 found and, byte for byte, what the leaf will say of it."""
        if all(deletion.statement for deletion in deletions):
            return list(deletions)
        stated = []
        with self.database.write() as tx:
            for deletion in deletions:
                if not deletion.statement:
                    blobs = artifacts.blobs_of(tx, deletion.artifact_n)
                    statement = receipt.build_deletion(_deletion_facts(deletion, blobs))
                    _record_facts(tx, deletion, statement)
                    deletion = replace(deletion, statement=statement)  # noqa: PLW2901
                stated.append(deletion)
        return stated

    def _finish(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D8: each model is deleted, and its receipt is kept as it will be handed out."""
        with self.database.write() as tx:
            for deletion in deletions:
                _record_end(tx, deletion)
            seen.see_log(tx, max((deletion.log_index or 0) + 1 for deletion in deletions))
            deleted_at = tx.now_micros
        return [replace(deletion, deleted_at=deleted_at) for deletion in deletions]

    def _erase_blobs(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """D9: the sealed files are gone in every version, and a second leaf says so."""
        # Also where the report is there: restored files may lie beside a deletion that had them erased.
        reported = self._report(deletions, [self._erase_files(deletion) for deletion in deletions])
        appended = self._append([_blobs_erased(deletion) for deletion in reported])
        with self.database.write() as tx:
            for deletion, (index, _) in zip(reported, appended, strict=True):
                _record_blobs_erased(tx, deletion, index)
            seen.see_log(tx, max(index for index, _ in appended) + 1)
            erased_at = tx.now_micros
        return [
            replace(deletion, blobs_log_index=index, blobs_erased_at=erased_at)
            for deletion, (index, _) in zip(reported, appended, strict=True)
        ]

    def _erase_files(self, deletion: Deletion) -> dict[str, Any]:
        """Erase what the blobs' rows name and whatever else lies under the model's prefix."""
        erased = [self.blobs.erase(name) for name in self.blobs.names(f"{deletion.internal_id}/")]
        return {
            "count": len(erased),
            "versions": sum(blob.versions for blob in erased),
            "size_bytes": sum(blob.bytes for blob in erased),
            "erased_at": iso(self.clock.now()),
            "software": _software(),
        }

    def _report(
        self, deletions: Sequence[Deletion], reports: Sequence[dict[str, Any]]
    ) -> list[Deletion]:
        """Write down what each second leaf will say, before it is there."""
        if all(deletion.blobs_report is not None for deletion in deletions):
            return list(deletions)
        since = self.log_size()
        reported = []
        with self.database.write() as tx:
            for deletion, report in zip(deletions, reports, strict=True):
                if deletion.blobs_report is None:
                    records.record_facts(tx, deletion, blobs_report=report, blobs_log_since=since)
                    text = json.dumps(report)
                    deletion = replace(deletion, blobs_report=text, blobs_log_since=since)  # noqa: PLW2901
                reported.append(deletion)
        return reported

    def _append(self, statements: Sequence[tuple[bytes, int]]) -> list[tuple[int, bytes]]:
        """Append each (statement, since), signed, once; return its index and the receipt that proves it."""
        log, signer = self.open_log()
        envelopes = [(receipt.sign(statement, signer), since) for statement, since in statements]
        proven = log.append_proven(envelopes)
        self.mark_log(max(one.size for one in proven))
        return [
            (one.index, receipt.bundle(envelope, one.index, one.proof, one.checkpoint))
            for one, (envelope, _) in zip(proven, envelopes, strict=True)
        ]


def _key_report(erased: Any) -> dict[str, Any]:
    return {
        "id": erased.key_id,
        "shard": f"{erased.shard:06}",
        "generation_before": erased.generation_before,
        "generation_after": erased.generation_after,
        "method": erased.method.value,
        "assurance": erased.assurance.value,
    }


def _record_facts(tx: Tx, deletion: Deletion, statement: bytes) -> None:
    records.record_facts(
        tx,
        deletion,
        fenced_at=deletion.fenced_at,
        fence_report=deletion.fence_report,
        evicted_at=deletion.evicted_at,
        evict_report=deletion.evict_report,
        key_erased_at=deletion.key_erased_at,
        key_report=deletion.key_report,
        statement=statement,
    )
    erased = json.loads(deletion.key_report or "{}")
    seen.see_keyring(tx, int(erased["shard"]), erased["generation_after"])


def _record_end(tx: Tx, deletion: Deletion) -> None:
    protocol.check_transition(State.DELETING, State.DELETED)
    if not tx.run(
        "UPDATE artifacts SET state = 'deleted' WHERE n = :n AND state = 'deleting'",
        n=deletion.artifact_n,
    ):
        raise RuntimeError("what an unfinished deletion is of is not deleting")
    records.record_facts(
        tx,
        deletion,
        log_index=deletion.log_index,
        receipt=deletion.receipt,
        deleted_at=tx.now_micros,
    )
    files.forget(tx, deletion.artifact_n)
    audit.record(
        tx,
        audit.EventType.RESOURCE_DELETED,
        organization_id=deletion.organization_id,
        actor=_actor(deletion),
        resource_id=deletion.artifact_id,
        resource_type=deletion.kind,
        deletion=deletion.id,
    )


def _record_blobs_erased(tx: Tx, deletion: Deletion, index: int) -> None:
    tx.run(
        "UPDATE blobs SET erased_at = :now WHERE artifact_n = :n",
        now=tx.now_micros,
        n=deletion.artifact_n,
    )
    records.record_facts(tx, deletion, blobs_log_index=index, blobs_erased_at=tx.now_micros)
    audit.record(
        tx,
        audit.EventType.BLOBS_ERASED,
        organization_id=deletion.organization_id,
        actor=audit.SERVER,
        resource_id=deletion.artifact_id,
        deletion=deletion.id,
    )


def _blobs_erased(deletion: Deletion) -> tuple[bytes, int]:
    """Return what the second leaf says, and where the log is searched for it from."""
    assert deletion.blobs_report is not None, "written before"
    assert deletion.blobs_log_since is not None, "written with the report"
    stated = facts.BlobsErasedFacts(
        deletion_id=deletion.id,
        artifact_id=deletion.artifact_id,
        manifest_sha256=deletion.manifest_sha256,
        failures=(),
        **json.loads(deletion.blobs_report),
    )
    return receipt.build_blobs_erased(stated), deletion.blobs_log_since


def _deletion_facts(deletion: Deletion, blobs: list[SealedBlob]) -> facts.DeletionFacts:
    if (
        deletion.fence_report is None
        or deletion.evict_report is None
        or deletion.key_report is None
    ):
        raise RuntimeError("D4 to D6 come before D7")
    return facts.DeletionFacts(
        deletion_id=deletion.id,
        organization_id=deletion.organization_id,
        artifact_id=deletion.artifact_id,
        internal_id=deletion.internal_id,
        manifest_sha256=deletion.manifest_sha256,
        requested_by=deletion.requested_by,
        requested_at=_time(deletion.requested_at),
        committed_at=_time(deletion.requested_at),
        fenced_at=_time(deletion.fenced_at),
        evicted_at=_time(deletion.evicted_at),
        key_erased_at=_time(deletion.key_erased_at),
        epoch=deletion.epoch,
        fence=tuple(facts.FencedWorker(**one) for one in json.loads(deletion.fence_report)),
        engines=tuple(facts.EvictedEngine(**one) for one in json.loads(deletion.evict_report)),
        key=facts.ErasedKey(**json.loads(deletion.key_report)),
        blobs=facts.SealedBlobs(
            count=len(blobs), size_bytes=sum(blob.sealed_bytes for blob in blobs)
        ),
        residuals=RESIDUALS,
        software=_software(),
        kind=deletion.kind,
    )


def _time(micros: int | None) -> str:
    if micros is None:
        raise RuntimeError("a step that is done has a time")
    return iso(from_micros(micros))


def _software() -> str:
    return f"tunewarden {__version__}"


def _actor(deletion: Deletion) -> audit.Actor:
    return audit.Actor(
        key_id=deletion.requested_by, user_id=None, project_id=None, request_id=deletion.request_id
    )

"""The numbered steps of a deletion; the only caller of what erases. Each may be repeated.

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
from tunewarden.db.database import Database
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

    def erase(self, key_id: str) -> Any:
        """Erase a key for good; returns `artifacts.keyring.ErasedKey`."""


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

    def do(self, step: Step, deletion: Deletion) -> Deletion:
        """Do one step; return the deletion with what was found. Raises Error(UNAVAILABLE)."""
        todo = {
            Step.FENCE: self._fence,
            Step.EVICT: self._evict,
            Step.ERASE_KEY: self._erase_key,
            Step.LOG: self._log,
            Step.FINISH: self._finish,
            Step.ERASE_BLOBS: self._erase_blobs,
        }
        return todo[step](deletion)

    def _now(self) -> int:
        return to_micros(self.clock.now())

    def _fence(self, deletion: Deletion) -> Deletion:
        """D4: nobody serves the model any more; a worker that holds on is killed."""
        workers = self.fence.fence(deletion.artifact_n, within_seconds=self.fence_seconds)
        report = json.dumps([asdict(worker) for worker in workers])
        return replace(deletion, fenced_at=self._now(), fence_report=report)

    def _evict(self, deletion: Deletion) -> Deletion:
        """D5: every engine that could hold the weights has let go of them. No engine holds files."""
        holding = self.engines if deletion.kind == ArtifactKind.MODEL else ()
        evicted = [
            engine.evict(deletion.internal_id, within_seconds=self.evict_seconds)
            for engine in holding
        ]
        report = json.dumps([asdict(engine) for engine in evicted])
        return replace(deletion, evicted_at=self._now(), evict_report=report)

    def _erase_key(self, deletion: Deletion) -> Deletion:
        """D6: no key opens the model's blobs any more."""
        erased = self.keyring.erase(deletion.key_id)
        report = json.dumps(
            {
                "id": erased.key_id,
                "shard": f"{erased.shard:06}",
                "generation_before": erased.generation_before,
                "generation_after": erased.generation_after,
                "method": erased.method.value,
                "assurance": erased.assurance.value,
            }
        )
        return replace(deletion, key_erased_at=self._now(), key_report=report)

    def _log(self, deletion: Deletion) -> Deletion:
        """D7: what was done is a leaf of the log, under a signed checkpoint."""
        statement = deletion.statement or self._state(deletion)
        index, bundle = self._append(statement, deletion.log_since)
        return replace(deletion, log_index=index, receipt=bundle)

    def _state(self, deletion: Deletion) -> bytes:
        """Write down what D4 to D6 found and, byte for byte, what the leaf will say of it."""
        with self.database.write() as tx:
            blobs = artifacts.blobs_of(tx, deletion.artifact_n)
            statement = receipt.build_deletion(_deletion_facts(deletion, blobs))
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
        return statement

    def _finish(self, deletion: Deletion) -> Deletion:
        """D8: the model is deleted, and the receipt is kept as it will be handed out."""
        with self.database.write() as tx:
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
            seen.see_log(tx, (deletion.log_index or 0) + 1)
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
            deleted_at = tx.now_micros
        return replace(deletion, deleted_at=deleted_at)

    def _erase_blobs(self, deletion: Deletion) -> Deletion:
        """D9: the sealed files are gone in every version, and a second leaf says so."""
        # Also where the report is there: restored files may lie beside a deletion that had them erased.
        report = self._erase_files(deletion)
        if deletion.blobs_report is None:
            deletion = self._report(deletion, report)
        assert deletion.blobs_report is not None, "written above"
        assert deletion.blobs_log_since is not None, "written with the report"
        found = json.loads(deletion.blobs_report)
        stated = facts.BlobsErasedFacts(
            deletion_id=deletion.id,
            artifact_id=deletion.artifact_id,
            manifest_sha256=deletion.manifest_sha256,
            failures=(),
            **found,
        )
        index, _ = self._append(receipt.build_blobs_erased(stated), deletion.blobs_log_since)
        with self.database.write() as tx:
            tx.run(
                "UPDATE blobs SET erased_at = :now WHERE artifact_n = :n",
                now=tx.now_micros,
                n=deletion.artifact_n,
            )
            records.record_facts(tx, deletion, blobs_log_index=index, blobs_erased_at=tx.now_micros)
            seen.see_log(tx, index + 1)
            audit.record(
                tx,
                audit.EventType.BLOBS_ERASED,
                organization_id=deletion.organization_id,
                actor=audit.SERVER,
                resource_id=deletion.artifact_id,
                deletion=deletion.id,
            )
            erased_at = tx.now_micros
        return replace(deletion, blobs_log_index=index, blobs_erased_at=erased_at)

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

    def _report(self, deletion: Deletion, report: dict[str, Any]) -> Deletion:
        """Write down what the second leaf will say, before it is there."""
        since = self.log_size()
        with self.database.write() as tx:
            records.record_facts(tx, deletion, blobs_report=report, blobs_log_since=since)
        return replace(deletion, blobs_report=json.dumps(report), blobs_log_since=since)

    def _append(self, statement: bytes, since: int) -> tuple[int, bytes]:
        """Append a signed statement once; return its index and the receipt that proves it."""
        log, signer = self.open_log()
        envelope = receipt.sign(statement, signer)
        proven = log.append_proven(envelope, since=since)
        self.mark_log(proven.size)
        index = proven.index
        return index, receipt.bundle(envelope, index, proven.proof, proven.checkpoint)


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

"""D10: recovery at start, before anything serves, whichever components were restored (I10).

Four components can each be older than the others: the database, the keyring, the log, the blobs.

- The log is newer than the database: its leaves are replayed, and their artifacts are deleted.
- A model whose key is missing is deleted, with or without a leaf.
- The log is older than the marks of the database or the keyring: refused, because appending to it would
  contradict checkpoints signed before (I11).
- The keyring is older than the marks of the database or the log: refused, because it may hold erased keys.
- Blobs need no check: without their key they are undecipherable.

If every component comes from one old copy of the whole machine, nothing here can tell.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tunewarden import audit, locks, space
from tunewarden.artifacts.keyring import Keyring
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import replay
from tunewarden.deletion.commitment import commit, detach
from tunewarden.deletion.records import Intent
from tunewarden.deletion.replay import SERVER
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts, retention_pause
from tunewarden.registry import restore_marks as noted
from tunewarden.registry.artifacts import Artifact
from tunewarden.registry.retention_pause import PauseReason
from tunewarden.transparency import proofs
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden_receipts import receipt
from tunewarden_receipts.audit_digest import AuditDigestLeaf
from tunewarden_receipts.deletion_case import CaseLeaf
from tunewarden_receipts.key_hand_over import KeyHandOverLeaf
from tunewarden_receipts.leaf import Disclosure, ExportLeaf
from tunewarden_receipts.statement import BlobsErased, Deleted, Facts

MARK_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Settled:
    """What recovery found: the number of deletions replayed from the log, and of lost keys."""

    replayed: int
    without_key: int


class HighWaterMark:
    """A number that only grows, stored beside the keyring, to detect an older copy of what it is about."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        """Return the mark; 0 if there is none."""
        try:
            # Empty: it was created, but a crash or another thread has not written its first digits yet.
            return int(self._path.read_text("ascii") or 0)
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise Error(
                Kind.UNAVAILABLE, f"{self._path.name} is damaged. Restore the keyring."
            ) from error

    def raise_to(self, size: int) -> None:
        """Raise the mark durably; a smaller size changes nothing."""
        if size <= self.read():
            return
        with locks.exclusive(self._path.with_suffix(".lock")):
            if size > self.read():
                with space.translated():
                    self._overwrite(f"{size:0{MARK_DIGITS}}".encode())

    def reserve(self) -> None:
        """Create the file, so that a later mark needs no disk space. # I20."""
        with locks.exclusive(self._path.with_suffix(".lock")):
            if not self.read():
                self._overwrite(b"0" * MARK_DIGITS)

    def _overwrite(self, digits: bytes) -> None:
        """Write in place: the digits fit into one sector, which a power cut leaves old or new."""
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, digits, 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


class LogMark(HighWaterMark):
    """The high-water mark of the log's size, to detect an old log (I11)."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Recovery at start. Raises Error(UNAVAILABLE) for a component that cannot be trusted, with the remedy."""

    database: Database
    keyring: Keyring
    log: Log
    signer: LogSigner
    mark: LogMark

    def settle(self) -> Settled:
        """Reconcile the database with log and keyring; unfinished deletions are resumed later."""
        # All checks come first: a refusal changes nothing.
        self._check_log()
        found = self.keyring.generations()
        self._check_keyring(found, self._check_unseen())
        return Settled(self._replay(), self._delete_without_key(found))

    def adopt_keyring(self) -> int:
        """Accept an older keyring: erase again every key that was erased before; return their number.

        A model newer than the keyring has lost its key, and is deleted.
        """
        held = self.keys_to_erase_again()
        # Before the log's mark is raised: until then a crash leaves a keyring that is refused.
        self.keyring.erase_many(held)
        self._replay()
        self._ask_without_key("", "l")  # key ids begin with a k
        with self.database.write(below_floor=True) as tx:
            noted.forget_keyring(tx)
            for shard, generation in self.keyring.generations().items():
                noted.see_keyring(tx, shard, generation)
            audit.record(
                tx,
                audit.EventType.KEYRING_ADOPTED,
                organization_id="",
                actor=audit.SERVER,
                resource_id="keyring",
                erased_again=len(held),
            )
        return len(held)

    def keys_to_erase_again(self) -> list[str]:
        """Return the ids of erased keys that this keyring still has."""
        self._check_log()
        self._check_unseen()
        return [key_id for key_id in self._erased_keys() if self.keyring.contains(key_id)]

    def _check_log(self) -> None:
        seen = max(noted.log_size(self.database), self.mark.read())
        if self.log.size() < seen:
            raise Error(
                Kind.UNAVAILABLE,
                f"The deletion log has {self.log.size()} entries, but {seen} were written: it is an old"
                " copy. Restore the newest copy of log/, then start again. Nothing was changed.",
                code="log_rolled_back",
            )

    def _leaves(self, start: int) -> Iterator[tuple[int, bytes, Facts]]:
        """Yield (index, entry, facts) of the log's leaves from `start` on. Raises Error(INVALID)."""
        chain = self.signer.chain
        for index, entry in self.log.entries(start):
            try:
                facts = receipt.verify_entry(entry, chain.of_entry(index).pem())
            except receipt.ReceiptError as error:
                message = f"Entry {index} of the deletion log cannot be trusted: {error.reason}"
                raise Error(Kind.INVALID, message, code="receipt_invalid") from error
            yield index, entry, facts

    def _check_unseen(self) -> dict[int, int]:
        """Refuse unseen leaves of another history; return the keyring's generations that the leaves name."""
        generations: dict[int, int] = {}
        for _, _, facts in self._leaves(noted.log_size(self.database)):
            if isinstance(facts, Deleted):
                with self.database.read() as tx:
                    replay.check_history(tx, facts)
                shard = int(facts.key.shard)
                generations[shard] = max(generations.get(shard, 0), facts.key.generation_after)
            elif isinstance(facts, ExportLeaf):
                with self.database.read() as tx:
                    replay.check_export_history(tx, facts)
            elif isinstance(facts, AuditDigestLeaf):
                with self.database.read() as tx:
                    replay.check_audit_history(tx, facts)
        return generations

    def _erased_keys(self) -> set[str]:
        """Return every key that must be erased, from database and log."""
        leaves = (facts for _, _, facts in self._leaves(0))
        logged = {facts.key.id for facts in leaves if isinstance(facts, Deleted)}
        return logged | artifacts.keys_of_deleted(self.database)

    def _replay(self) -> int:
        """Apply the leaves that the database has not seen."""
        replayed = 0
        lost: list[int] = []
        handed: list[tuple[KeyHandOverLeaf, int]] = []
        going_on = self._going_on_at_cases()
        times = sorted(going_on)
        for index, entry, facts in self._leaves(noted.log_size(self.database)):
            if isinstance(facts, KeyHandOverLeaf):
                handed.append((facts, index))
            elif isinstance(facts, AuditDigestLeaf):
                with self.database.write(below_floor=True) as tx:
                    lost += replay.audit_digest(tx, facts, index)
            elif isinstance(facts, BlobsErased):
                with self.database.write(below_floor=True) as tx:
                    replay.blobs_erased(tx, facts, index)
            elif isinstance(facts, ExportLeaf):
                with self.database.write(below_floor=True) as tx:
                    replay.export(tx, facts, index)
            elif isinstance(facts, CaseLeaf):
                bundle = self._bundle(index, entry)
                with self.database.write(below_floor=True) as tx:
                    replay.case(tx, facts, index, bundle, going_on[facts.requested_at])
            else:
                bundle = self._bundle(index, entry)
                with self.database.write(below_floor=True) as tx:
                    if replay.deletion(tx, facts, index, bundle):
                        replayed += 1
                        retention_pause.pause_all(tx, PauseReason.REPLAY)
                first, end = facts.requested_at, facts.key_erased_at
                for at in times[bisect_left(times, first) : bisect_right(times, end)]:
                    going_on[at].append(facts)
        size = self.log.size()
        with self.database.write(below_floor=True) as tx:
            replay.record_lost(tx, lost)
            for leaf, index in handed:
                replay.hand_over(tx, leaf.previous_key_id, leaf.new_key_id, index)
            if lost:
                retention_pause.pause_all(tx, PauseReason.RESTORE)
            noted.see_log(tx, size)
        self.mark.raise_to(size)
        return replayed

    def _going_on_at_cases(self) -> dict[str, list[Deleted]]:
        """Return an empty list for each time at which a case was requested whose leaf is to be replayed.

        It is for the deletions that were requested at that moment, or before it and not done then. Times of one format
        are in the order of their texts.
        """
        unseen = self._leaves(noted.log_size(self.database))
        return {facts.requested_at: [] for _, _, facts in unseen if isinstance(facts, CaseLeaf)}

    def _bundle(self, index: int, entry: bytes) -> Callable[[Disclosure | None], bytes]:
        proof, checkpoint = proofs.of(self.log, index)
        return lambda shown: receipt.bundle(entry, index, proof, checkpoint, shown)

    def _check_keyring(self, found: dict[int, int], logged: dict[int, int]) -> None:
        seen = noted.keyring_generations(self.database)
        for shard in sorted(seen.keys() | logged.keys()):
            generation = max(seen.get(shard, 0), logged.get(shard, 0))
            if found.get(shard, 0) < generation:
                raise Error(
                    Kind.UNAVAILABLE,
                    f"Shard {shard:06} of the keyring is of generation {found.get(shard, 0)}, but {generation} was"
                    " written: it is an old copy, which may hold keys that were erased. Restore the"
                    " newest mirror of keyring/. If there is none, `tunewarden keyring adopt` erases"
                    " those keys again and accepts this one. Nothing was changed.",
                    code="keyring_rolled_back",
                )

    def _delete_without_key(self, found: dict[int, int]) -> int:
        """Delete models and files whose key is missing. Reads only shards that changed."""
        count = 0
        seen = noted.keyring_generations(self.database)
        for shard, generation in found.items():
            if seen.get(shard) == generation:
                continue
            count += self._ask_without_key(f"k{shard:06}-", f"k{shard:06}.")
            with self.database.write(below_floor=True) as tx:
                noted.see_keyring(tx, shard, generation)
        return count

    def _ask_without_key(self, first: str, end: str) -> int:
        """Commit the deletion of active artifacts whose key is missing, in a range of key ids; return their number."""
        count = 0
        held: tuple[int, set[str]] = (-1, set())
        for page in artifacts.by_key(self.database, first, end):
            for artifact in page:
                shard = self.keyring.shard_of(artifact.key_id)
                if shard != held[0]:
                    held = shard, set(self.keyring.key_ids(shard))
                if artifact.key_id not in held[1]:
                    with self.database.write(below_floor=True) as tx:
                        _ask(tx, artifact, self.log.size())
                        retention_pause.pause_all(tx, PauseReason.RESTORE)
                    count += 1
        return count


def _ask(tx: Tx, artifact: Artifact, log_size: int) -> None:
    """Commit the deletion of an artifact whose key is missing, with the server as the actor."""
    intent = Intent(
        deletion_id=mint(Prefix.DELETION),
        requested_by=SERVER,
        requested_at=tx.now_micros,
        epoch=artifact.epoch + 1,
        log_since=log_size,
    )
    detach(tx, artifact, audit.SERVER, changed_by=SERVER)
    commit(tx, artifact, intent, audit.SERVER, reason="its key is gone")

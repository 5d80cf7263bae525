"""D10: what is on disk at start is settled before anything serves, whichever parts were restored (I10).

Four parts can each be older than the others: the database, the keyring, the log, the blobs.

- The log is newer than the database: its leaves are replayed, and what they delete is deleted.
- A model whose key is gone is deleted, with or without a leaf.
- The log is older than the database or the keyring has seen: refused, for to append to it would
  contradict checkpoints that were signed before (I11).
- The keyring is older than the database or the log has seen: refused, for it may hold erased keys.
- Blobs need no check: without their key they are noise.

If every part comes from one old copy of the whole machine, nothing here can tell.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunewarden import audit, locks
from tunewarden.artifacts.keyring import Keyring
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import receipt, replay
from tunewarden.deletion.facts import BlobsErasedFacts, DeletionFacts, Facts
from tunewarden.deletion.log import Log
from tunewarden.deletion.log_key import LogSigner
from tunewarden.deletion.requests import Intent, commit
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts
from tunewarden.registry import seen as noted
from tunewarden.registry.artifacts import Artifact

SERVER = "server"
MARK_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Settled:
    """What recovery found: deletions that the log knew and the database did not, and lost keys."""

    replayed: int
    without_key: int


class LogMark:
    """The newest size of the log, kept beside the keyring, so that an old log shows (I11)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        """Return the size that was marked last; 0 if none was."""
        try:
            # Empty: it was made, and a crash or another thread stands before its first digits.
            return int(self._path.read_text("ascii") or 0)
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise Error(
                Kind.UNAVAILABLE, f"{self._path.name} is damaged. Restore the keyring."
            ) from error

    def raise_to(self, size: int) -> None:
        """Note a size durably; a smaller one than before changes nothing."""
        if size <= self.read():
            return
        with locks.exclusive(self._path.with_suffix(".lock")):
            if size > self.read():
                self._overwrite(f"{size:0{MARK_DIGITS}}".encode())

    def _overwrite(self, digits: bytes) -> None:
        """Write in place: so few bytes lie in one sector, which a power cut leaves old or new."""
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


@dataclass(frozen=True, slots=True)
class Recovery:
    """The check at start. Raises Error(UNAVAILABLE) for what cannot be trusted, with what to do."""

    database: Database
    keyring: Keyring
    log: Log
    signer: LogSigner
    mark: LogMark

    def settle(self) -> Settled:
        """Bring the database in line with log and keyring; unfinished deletions are left to resume."""
        # Everything that may refuse comes first: a refusal changes nothing.
        self._check_log()
        found = self.keyring.generations()
        self._check_keyring(found, self._check_unseen())
        return Settled(self._replay(), self._delete_without_key(found))

    def adopt_keyring(self) -> int:
        """Accept an older keyring: erase anew every key that was erased before; return how many.

        A model that is newer than the keyring has lost its key, and is deleted.
        """
        self._check_log()
        self._check_unseen()
        # Before the leaves are noted as seen: until then a crash leaves a keyring that is refused.
        held = [key_id for key_id in self._erased_keys() if self.keyring.contains(key_id)]
        self.keyring.erase_many(held)
        self._replay()
        self._ask_without_key("", "l")  # key ids begin with a k
        with self.database.write() as tx:
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
        """Yield (index, entry, what it says) of the log's leaves from `start` on."""
        key = self.signer.public_pem()
        for index, entry in self.log.entries(start):
            yield index, entry, receipt.verify_entry(entry, key)

    def _check_unseen(self) -> dict[int, int]:
        """Refuse leaves of another history; return the keyring's generations that the others name."""
        generations: dict[int, int] = {}
        for _, _, facts in self._leaves(noted.log_size(self.database)):
            if isinstance(facts, DeletionFacts):
                with self.database.read() as tx:
                    replay.check_history(tx, facts)
                shard = int(facts.key.shard)
                generations[shard] = max(generations.get(shard, 0), facts.key.generation_after)
        return generations

    def _erased_keys(self) -> set[str]:
        """Return every key that was to be erased: the database may not know them all."""
        with self.database.read() as tx:
            rows = tx.rows("SELECT key_id FROM artifacts WHERE state IN ('deleting', 'deleted')")
        leaves = (facts for _, _, facts in self._leaves(0))
        logged = {facts.key.id for facts in leaves if isinstance(facts, DeletionFacts)}
        return logged | {str(row[0]) for row in rows}

    def _replay(self) -> int:
        """Apply the leaves that the database has not seen."""
        replayed = 0
        for index, entry, facts in self._leaves(noted.log_size(self.database)):
            if isinstance(facts, BlobsErasedFacts):
                with self.database.write() as tx:
                    replay.blobs_erased(tx, facts, index)
            else:
                bundle = self._bundle(index, entry)
                with self.database.write() as tx:
                    replayed += replay.deletion(tx, facts, index, bundle)
        size = self.log.size()
        with self.database.write() as tx:
            noted.see_log(tx, size)
        self.mark.raise_to(size)
        return replayed

    def _bundle(self, index: int, entry: bytes) -> bytes:
        checkpoint = self.log.checkpoint()
        size = int(checkpoint.split(b"\n")[1])
        return receipt.bundle(entry, index, self.log.inclusion_proof(index, size), checkpoint)

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
        """Ask for the deletion of models and files whose key is gone. Only shards that moved are read."""
        count = 0
        seen = noted.keyring_generations(self.database)
        for shard, generation in found.items():
            if seen.get(shard) == generation:
                continue
            count += self._ask_without_key(f"k{shard:06}-", f"k{shard:06}.")
            with self.database.write() as tx:
                noted.see_keyring(tx, shard, generation)
        return count

    def _ask_without_key(self, first: str, end: str) -> int:
        """Ask for the deletion of the active ones whose key is gone, by their key ids; return how many."""
        count = 0
        held: tuple[int, set[str]] = (-1, set())
        for page in self.database.pages(
            f"SELECT {artifacts.COLUMNS}, a.key_id FROM artifacts a WHERE a.key_id >= :first"  # noqa: S608
            " AND a.key_id < :end AND a.state IN ('active', 'archived')"
            " AND a.key_id > COALESCE(:after, '') ORDER BY a.key_id LIMIT :size",
            size=1000,
            first=first,
            end=end,
        ):
            for artifact in (Artifact(*artifacts.fields_of(row[:-1])) for row in page):
                shard = self.keyring.shard_of(artifact.key_id)
                if shard != held[0]:
                    held = shard, set(self.keyring.key_ids(shard))
                if artifact.key_id not in held[1]:
                    with self.database.write() as tx:
                        _ask(tx, artifact, self.log.size())
                    count += 1
        return count


def _ask(tx: Tx, artifact: Artifact, log_size: int) -> None:
    """Commit the deletion of an artifact whose key is gone, in the server's own name."""
    intent = Intent(
        deletion_id=mint(Prefix.DELETION),
        requested_by=SERVER,
        requested_at=tx.now_micros,
        epoch=artifact.epoch + 1,
        log_since=log_size,
    )
    commit(tx, artifact, intent, audit.SERVER, reason="its key is gone")

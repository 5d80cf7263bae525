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

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tunewarden import audit
from tunewarden.artifacts.keyring import Keyring
from tunewarden.clock import to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import receipt, records
from tunewarden.deletion.facts import DeletionFacts
from tunewarden.deletion.log import Log
from tunewarden.deletion.log_key import LogSigner
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint
from tunewarden.registry import models
from tunewarden.registry import seen as noted
from tunewarden.registry.models import Model

SERVER = "server"


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
            return int(self._path.read_text("ascii"))
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
        new = self._path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, str(size).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.rename(self._path)


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
        self._check_log()
        replayed = self._replay()
        self._check_keyring()
        return Settled(replayed, self._delete_without_key())

    def adopt_keyring(self) -> int:
        """Accept an older keyring: erase anew every key that was erased before; return how many."""
        self._check_log()
        self._replay()
        with self.database.read() as tx:
            rows = tx.rows("SELECT key_id FROM models WHERE state IN ('deleting', 'deleted')")
        held = [str(row[0]) for row in rows if self.keyring.contains(row[0])]
        self.keyring.erase_many(held)
        with self.database.write() as tx:
            noted.forget_keyring(tx)
            for shard in self.keyring.shards():
                noted.see_keyring(tx, shard, self.keyring.generation(shard))
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

    def _replay(self) -> int:
        """Apply the leaves that the database has not seen."""
        key = self.signer.public_pem()
        replayed = 0
        for index, entry in self.log.entries(noted.log_size(self.database)):
            facts = receipt.verify_entry(entry, key)
            if isinstance(facts, DeletionFacts):
                bundle = self._bundle(index, entry)
                with self.database.write() as tx:
                    replayed += _apply(tx, facts, index, bundle)
        size = self.log.size()
        with self.database.write() as tx:
            noted.see_log(tx, size)
        self.mark.raise_to(size)
        return replayed

    def _bundle(self, index: int, entry: bytes) -> bytes:
        checkpoint = self.log.checkpoint()
        size = int(checkpoint.split(b"\n")[1])
        return receipt.bundle(entry, index, self.log.inclusion_proof(index, size), checkpoint)

    def _check_keyring(self) -> None:
        for shard, generation in noted.keyring_generations(self.database).items():
            found = self.keyring.generation(shard)
            if found < generation:
                raise Error(
                    Kind.UNAVAILABLE,
                    f"Shard {shard:06} of the keyring is of generation {found}, but {generation} was"
                    " written: it is an old copy, which may hold keys that were erased. Restore the"
                    " newest mirror of keyring/. If there is none, `tunewarden keyring adopt` erases"
                    " those keys again and accepts this one. Nothing was changed.",
                    code="keyring_rolled_back",
                )

    def _delete_without_key(self) -> int:
        """Ask for the deletion of active models whose key is gone. Only shards that moved are read."""
        count = 0
        seen = noted.keyring_generations(self.database)
        for shard in self.keyring.shards():
            generation = self.keyring.generation(shard)
            if seen.get(shard) == generation:
                continue
            for model in self._active_of_shard(shard):
                if not self.keyring.contains(model.key_id):
                    count += 1
                    with self.database.write() as tx:
                        _ask(tx, model, self.log.size())
            with self.database.write() as tx:
                noted.see_keyring(tx, shard, generation)
        return count

    def _active_of_shard(self, shard: int) -> Iterator[Model]:
        with self.database.read() as tx:
            rows = tx.rows(
                f"SELECT {models.COLUMNS} FROM models WHERE key_id LIKE :prefix"  # noqa: S608
                " AND state IN ('active', 'archived')",
                prefix=f"k{shard:06}-%",
            )
        yield from (models.from_row(row) for row in rows)


def _apply(tx: Tx, facts: DeletionFacts, index: int, bundle: bytes) -> int:
    """Delete what a leaf says is deleted; return 1 if the database did not know."""
    model = models.find_any(tx, facts.organization_id, facts.model_id)
    if model is None or model.state is models.State.DELETED:
        return 0
    begun = records.find_of_model(tx, model.n)
    if begun is not None and begun.id == facts.deletion_id:
        return 0  # It is unfinished here, and its own steps will find this leaf.
    if begun is not None:
        raise Error(
            Kind.UNAVAILABLE,
            f"The log says that {facts.deletion_id} deleted {facts.model_id}, the database says {begun.id}."
            " They are copies of different histories. Restore both from the same time or later.",
        )
    tx.run(
        "UPDATE models SET state = 'deleting', epoch = :epoch WHERE n = :n",
        epoch=facts.epoch,
        n=model.n,
    )
    tx.run(
        "INSERT INTO deletions (id, model_n, organization_id, requested_by, request_id, requested_at,"
        " epoch, log_since, fenced_at, fence_report, evicted_at, evict_report, key_erased_at, key_report,"
        " log_index, receipt) VALUES (:id, :model, :organization, :by, '', :requested, :epoch, :index,"
        " :fenced, :fence, :evicted, :evict, :erased, :key, :index, :receipt)",
        id=facts.deletion_id,
        model=model.n,
        organization=facts.organization_id,
        by=facts.requested_by,
        requested=_micros(facts.requested_at),
        epoch=facts.epoch,
        index=index,
        fenced=_micros(facts.fenced_at),
        fence=json.dumps([{"worker": one.worker, "how": one.how} for one in facts.fence]),
        evicted=_micros(facts.evicted_at),
        evict="[]",
        erased=_micros(facts.key_erased_at),
        key="{}",
        receipt=bundle,
    )
    return 1


def _ask(tx: Tx, model: Model, log_size: int) -> None:
    """Commit the deletion of a model whose key is gone, in the server's own name."""
    tx.run("UPDATE models SET state = 'deleting', epoch = epoch + 1 WHERE n = :n", n=model.n)
    deletion_id = mint(Prefix.DELETION)
    tx.run(
        "INSERT INTO deletions (id, model_n, organization_id, requested_by, request_id, requested_at,"
        " epoch, log_since) VALUES (:id, :model, :organization, :by, '', :now, :epoch, :since)",
        id=deletion_id,
        model=model.n,
        organization=model.organization_id,
        by=SERVER,
        now=tx.now_micros,
        epoch=model.epoch + 1,
        since=log_size,
    )
    audit.record(
        tx,
        audit.EventType.DELETION_REQUESTED,
        organization_id=model.organization_id,
        actor=audit.SERVER,
        resource_id=model.id,
        deletion=deletion_id,
        reason="its key is gone",
    )


def _micros(text: str) -> int:
    return to_micros(datetime.fromisoformat(text))

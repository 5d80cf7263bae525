"""Drafts: sealed bytes that are no artifact yet, each under a key of its own.

An import is a draft while it runs; an upload until it is completed; a job's saved state until the
job ends. A draft becomes an artifact, which takes over its internal id and key, or it is erased.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tunewarden.artifacts.blobs import ErasableBlobs
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint
from tunewarden.locks import ByteLocks
from tunewarden.registry import seen

SEALED = ".age"
GONE = "What was begun here is gone. Begin again."


class DraftKind(StrEnum):
    """What is being made; it decides how long a draft may live."""

    IMPORT = "import"
    UPLOAD = "upload"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Draft:
    """Where bytes may be sealed: blobs below `internal_id`, to `recipient` (an age public key)."""

    internal_id: str
    key_id: str
    recipient: str


@dataclass(frozen=True, slots=True)
class Drafts:
    """All drafts. `lock_file` tells a live import from one that crashed."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    lock_file: Path

    @contextmanager
    def importing(self) -> Iterator[Draft]:
        """Yield a draft that is erased if the block fails, or at the next start if it crashes."""
        locks = ByteLocks(self.lock_file)
        try:
            if not locks.try_shared(0):
                raise Error(
                    Kind.UNAVAILABLE, "The server is starting; try again.", retry_after_seconds=1
                )
            draft = self.create(DraftKind.IMPORT)
            try:
                yield draft
            except BaseException:
                self.erase(draft.internal_id)
                raise
        finally:
            locks.close()

    def create(self, kind: DraftKind, *, internal_id: str | None = None) -> Draft:
        """Make a key and note what it is for; whoever asked settles or erases the draft.

        A job gives its own `internal_id`, which nothing else has.
        """
        internal_id = internal_id or mint(Prefix.SLOT)
        key = self.keyring.create()
        try:
            with self.database.write() as tx:
                tx.run(
                    "INSERT INTO drafts (internal_id, kind, key_id, created_at)"
                    " VALUES (:id, :kind, :key, :now)",
                    id=internal_id,
                    kind=kind.value,
                    key=key.id,
                    now=tx.now_micros,
                )
        except BaseException:
            self.keyring.erase(key.id)
            raise
        return Draft(internal_id, key.id, key.recipient)

    def open(self, internal_id: str) -> Draft:
        """Return a draft to seal more into. Raises Error(UNAVAILABLE) when it or its key is gone."""
        key_id = self._key_id(internal_id)
        if key_id is None:
            raise Error(Kind.UNAVAILABLE, GONE)
        try:
            identity = self.keyring.open(key_id)
        except KeyErased as error:
            raise Error(Kind.UNAVAILABLE, GONE) from error
        return Draft(internal_id, key_id, str(identity.to_public()))

    def settle(self, tx: Tx, internal_id: str) -> None:
        """Let an artifact, registered in the same transaction, take over the draft's id and key."""
        row = tx.row("SELECT key_id FROM drafts WHERE internal_id = :id", id=internal_id)
        if row is None:
            raise Error(Kind.CONFLICT, GONE)
        shard = self.keyring.shard_of(row[0])
        seen.see_keyring(tx, shard, self.keyring.generation(shard))
        tx.run("DELETE FROM drafts WHERE internal_id = :id", id=internal_id)

    def erase(self, internal_id: str) -> None:
        """Erase a draft, key first; nothing if it is gone or an artifact took it over."""
        key_id = self._key_id(internal_id)
        if key_id is None:
            return
        self.keyring.erase(key_id)
        for name in self.blobs.names(f"{internal_id}/"):
            self.blobs.erase(name)
        with self.database.write() as tx:
            tx.run("DELETE FROM drafts WHERE internal_id = :id", id=internal_id)

    def sweep(self) -> int:
        """Erase what crashed imports left, unless one is running; return how many there were."""
        locks = ByteLocks(self.lock_file)
        try:
            if not locks.try_exclusive(0):
                return 0
            with self.database.read() as tx:
                left = tx.rows("SELECT internal_id FROM drafts WHERE kind = 'import'")
            for (internal_id,) in left:
                self.erase(internal_id)
            return len(left)
        finally:
            locks.close()

    def _key_id(self, internal_id: str) -> str | None:
        row = self.database.peek(
            "SELECT key_id FROM drafts WHERE internal_id = :id", id=internal_id
        )
        return str(row[0]) if row else None


def blob_name(internal_id: str, name: str) -> str:
    """Return the blob's name of one part of a draft or an artifact."""
    return f"{internal_id}/{name}{SEALED}"

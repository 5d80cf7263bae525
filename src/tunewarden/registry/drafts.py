"""Drafts: encrypted data that is not an artifact yet, each under its own key.

An import is a draft while it runs, an upload until it is completed, a job's saved state until the
job ends. A draft becomes an artifact, which keeps its internal id and key, or it is erased.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from tunewarden.artifacts.blobs import ErasableBlobs
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint
from tunewarden.locks import ByteLocks
from tunewarden.registry import restore_marks
from tunewarden.registry.quota import FIRST_BYTES, STEP_BYTES, Quota

SEALED = ".age"
GONE = "The upload or import no longer exists. Start again."


class DraftKind(StrEnum):
    """The kind of a draft, which determines its lifetime."""

    IMPORT = "import"
    UPLOAD = "upload"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Draft:
    """A place for encrypted blobs: below `internal_id`, encrypted to `recipient` (an age public key)."""

    internal_id: str
    key_id: str
    recipient: str
    # Bytes reserved for it at creation.
    reserved: int = 0


class Reserving:
    """Reserves quota for the ciphertext of one blob before it is stored, and computes its digest."""

    def __init__(self, drafts: "Drafts", draft: Draft) -> None:
        self._drafts = drafts
        self._draft = draft
        self._bytes = 0
        self._reserved = draft.reserved
        self._sha256 = sha256()

    def update(self, data: bytes, /) -> None:
        """Add bytes. Raises Error(QUOTA_EXCEEDED) if they may not be stored."""
        self._sha256.update(data)
        self._bytes += len(data)
        if self._bytes > self._reserved:
            needed = self._bytes - self._reserved
            self._reserved += self._drafts.reserve(self._draft.internal_id, needed)

    def hexdigest(self) -> str:
        """Return the SHA-256 of all bytes so far."""
        return self._sha256.hexdigest()

    def return_unused(self, *, failed: bool = False) -> None:
        """Release the unused reservation; all of it if the blob failed."""
        unused = self._reserved - (0 if failed else self._bytes)
        self._drafts.unreserve(self._draft.internal_id, unused)


@dataclass(frozen=True, slots=True)
class Drafts:
    """All drafts. `lock_file` distinguishes a running import from a crashed one."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    lock_file: Path
    quota: Quota

    @contextmanager
    def importing(self, project_id: str, needed: int = 0) -> Iterator[Draft]:
        """Yield a draft that is erased if the block fails, or at the next start after a crash."""
        locks = ByteLocks(self.lock_file)
        try:
            if not locks.try_shared(0):
                raise Error(
                    Kind.UNAVAILABLE,
                    "The server is starting. Please try again.",
                    retry_after_seconds=1,
                )
            draft = self.create(
                DraftKind.IMPORT, project_id, needed=needed or FIRST_BYTES, least=needed
            )
            try:
                yield draft
            except BaseException:
                self.erase(draft.internal_id)
                raise
        finally:
            locks.close()

    def create(
        self,
        kind: DraftKind,
        project_id: str,
        *,
        needed: int = 0,
        least: int = 0,
        internal_id: str | None = None,
    ) -> Draft:
        """Create a key and a draft row; the caller must settle or erase the draft.

        Reserves up to `needed` bytes of the project's quota, at least `least`, else Error(QUOTA_EXCEEDED).
        A job passes its own `internal_id`, which is unique.
        """
        self.database.check_room()
        internal_id = internal_id or mint(Prefix.SLOT)
        key = self.keyring.create()
        try:
            with self.database.write() as tx:
                reserved = self.quota.grant(tx, project_id, least, needed)
                tx.run(
                    "INSERT INTO drafts (internal_id, kind, key_id, created_at, project_id, bytes)"
                    " VALUES (:id, :kind, :key, :now, :project, :bytes)",
                    id=internal_id,
                    kind=kind.value,
                    key=key.id,
                    now=tx.now_micros,
                    project=project_id,
                    bytes=reserved,
                )
        except BaseException:
            self.keyring.erase(key.id)
            raise
        return Draft(internal_id, key.id, key.recipient, reserved)

    def reserve(self, internal_id: str, needed: int) -> int:
        """Reserve more bytes for a draft; return how many. Raises Error(QUOTA_EXCEEDED)."""
        with self.database.write(survives=False) as tx:
            row = tx.row("SELECT project_id FROM drafts WHERE internal_id = :id", id=internal_id)
            if row is None:
                raise Error(Kind.UNAVAILABLE, GONE)
            granted = self.quota.grant(tx, row[0], needed, max(needed, STEP_BYTES))
            _add(tx, internal_id, granted)
        return granted

    def unreserve(self, internal_id: str, size: int) -> None:
        """Reserve fewer bytes for a draft, if it still exists."""
        if size:
            with self.database.write(survives=False, below_floor=True) as tx:
                _add(tx, internal_id, -size)

    def open(self, internal_id: str) -> Draft:
        """Return a draft to add blobs to. Raises Error(UNAVAILABLE) if it or its key is gone."""
        draft = self.find(internal_id)
        if draft is None:
            raise Error(Kind.UNAVAILABLE, GONE)
        return draft

    def find(self, internal_id: str) -> Draft | None:
        """Return a draft to add blobs to; None if it or its key is gone."""
        key_id = self._key_id(internal_id)
        if key_id is None:
            return None
        try:
            identity = self.keyring.open(key_id)
        except KeyErased:
            return None
        return Draft(internal_id, key_id, str(identity.to_public()))

    def settle(self, tx: Tx, internal_id: str) -> None:
        """Hand the draft's id and key to an artifact that is registered in the same transaction."""
        row = tx.row("SELECT key_id FROM drafts WHERE internal_id = :id", id=internal_id)
        if row is None:
            raise Error(Kind.CONFLICT, GONE)
        shard = self.keyring.shard_of(row[0])
        restore_marks.see_keyring(tx, shard, self.keyring.generation(shard))
        tx.run("DELETE FROM drafts WHERE internal_id = :id", id=internal_id)

    def erase(self, internal_id: str) -> None:
        """Erase a draft, key first; no-op if it is gone or was settled."""
        key_id = self._key_id(internal_id)
        if key_id is None:
            return
        self.keyring.erase(key_id)
        for name in self.blobs.names(f"{internal_id}/"):
            self.blobs.erase(name)
        with self.database.write(below_floor=True) as tx:
            tx.run("DELETE FROM drafts WHERE internal_id = :id", id=internal_id)

    def sweep(self) -> int:
        """Erase the drafts of crashed imports, unless one is running; return their number."""
        locks = ByteLocks(self.lock_file)
        try:
            if not locks.try_exclusive(0):
                return 0
            left = self.of_kind(DraftKind.IMPORT)
            for internal_id in left:
                self.erase(internal_id)
            return len(left)
        finally:
            locks.close()

    def of_kind(self, kind: DraftKind) -> list[str]:
        """Return the internal ids of all drafts of a kind."""
        with self.database.read() as tx:
            rows = tx.rows("SELECT internal_id FROM drafts WHERE kind = :kind", kind=kind.value)
        return [str(row[0]) for row in rows]

    def exists(self, internal_id: str) -> bool:
        """Return whether a draft exists and is not erased yet."""
        return self._key_id(internal_id) is not None

    def _key_id(self, internal_id: str) -> str | None:
        row = self.database.peek(
            "SELECT key_id FROM drafts WHERE internal_id = :id", id=internal_id
        )
        return str(row[0]) if row else None


def claim(tx: Tx, internal_id: str) -> bool:
    """Note that a new draft belongs to an upload; False if the draft is gone."""
    return bool(tx.run("UPDATE drafts SET is_claimed = 1 WHERE internal_id = :id", id=internal_id))


def unclaimed(tx: Tx, *, before: int, limit: int) -> list[str]:
    """Return upload drafts created before a time that no upload has claimed."""
    rows = tx.rows(
        "SELECT internal_id FROM drafts WHERE kind = 'upload' AND is_claimed = 0"
        " AND created_at < :before LIMIT :limit",
        before=before,
        limit=limit,
    )
    return [str(row[0]) for row in rows]


def count_of(tx: Tx, project_id: str) -> int:
    """Return how many drafts a project has."""
    row = tx.row("SELECT COUNT(*) FROM drafts WHERE project_id = :project", project=project_id)
    return int(row[0]) if row else 0


def _add(tx: Tx, internal_id: str, size: int) -> None:
    tx.run(
        "UPDATE drafts SET bytes = CASE WHEN bytes + :size < 0 THEN 0 ELSE bytes + :size END"
        " WHERE internal_id = :id",
        size=size,
        id=internal_id,
    )


def blob_name(internal_id: str, name: str) -> str:
    """Return the blob name of one part of a draft or an artifact."""
    return f"{internal_id}/{name}{SEALED}"

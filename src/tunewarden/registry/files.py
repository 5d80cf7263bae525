"""Files that clients upload and jobs produce, each encrypted under its own key.

A file's name is personal data: it is stored only in its row, encrypted under the file's key, and never in a
receipt, the log or an audit event.
"""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, islice

from tunewarden import audit
from tunewarden.artifacts import sealed_text, sealing
from tunewarden.artifacts.blobs import BlobErased, Blobs
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.artifacts.plain_memory import PlainMemory
from tunewarden.artifacts.sealing import Readable
from tunewarden.audit import Actor, refusals
from tunewarden.db import cursors
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts, file_rows, lineage
from tunewarden.registry.artifacts import SealedBlob, State
from tunewarden.registry.drafts import GONE, Draft, Drafts, Reserving, blob_name
from tunewarden.registry.file_rows import File
from tunewarden.registry.file_rules import Description, Watched
from tunewarden.registry.lineage import Origin
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType

CONTENT = "content"
# What a page of few looks through, as of models.
LOOKED_AT_MAX = 10_000
# Parameters that an audit event of a refused file may name.
PARAMS = frozenset({"file", "filename", "purpose", "expires_after.anchor", "expires_after.seconds"})


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a file, and the API key that created it."""

    organization_id: str
    project_id: str
    created_by: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted blob, with the digest of its ciphertext."""

    blob: SealedBlob
    sha256: str


@dataclass(frozen=True, slots=True)
class Files:
    """Storing files and reading them back."""

    database: Database
    keyring: Keyring
    blobs: Blobs
    drafts: Drafts
    memory: PlainMemory

    def precheck(self, caller: Caller) -> None:
        """Check whether a file may be created, before its body is read.

        Raises Error(FORBIDDEN), Error(MISCONFIGURED) if memory may be swapped to a disk, Error(STORAGE_FULL),
        Error(QUOTA_EXCEEDED).
        """
        authorize(caller, Action.WRITE_FILES)
        self.memory.check()
        self.database.check_room()
        with self.database.read() as tx:
            self.drafts.quota.check_room_for_file(tx, caller.project_id)

    def create(self, caller: Caller, reader: Readable, describe: Callable[[], Description]) -> File:
        """Encrypt `reader`, and register it as a file of the caller's project.

        `describe` is called when the reader has ended: in a form, the purpose may follow the
        file. Raises Error(FORBIDDEN), Error(INVALID), Error(MISCONFIGURED) and what the reader
        raises; then nothing is left behind.
        """
        authorize(caller, Action.WRITE_FILES)
        self.memory.check()
        owner = Owner(caller.organization_id, caller.project_id, caller.key_id)

        def authorize_now(tx: Tx, _: File) -> None:
            keys.authorize_now(tx, caller, Action.WRITE_FILES)
            self.drafts.quota.check_room_for_file(tx, caller.project_id, is_registered=True)

        return self._bring_in(owner, caller.actor, reader, describe, authorize_now)

    def store(
        self,
        owner: Owner,
        *,
        filename: str,
        purpose: str,
        reader: Readable,
        within: Callable[[Tx, File], None] = lambda _tx, _file: None,
    ) -> File:
        """Store a file that the server produced, such as a job's results.

        `within` runs in the transaction that registers it: both are committed, or neither. If it
        or the reader raises, nothing is left behind.
        """
        made = Description(filename, purpose, None)
        return self._bring_in(owner, audit.SERVER, reader, lambda: made, within)

    def content(self, file: File) -> Generator[bytes, None, None]:
        """Yield a file's plaintext in order, in bounded memory. Close the generator to end early.

        Raises what `file_rows.missing` returns if the file is deleted in the meantime, Error(UNAVAILABLE) if the
        stored data is damaged, possibly after some bytes. The caller must hold the file's guard.
        """
        with self.database.read() as tx:
            blobs = artifacts.blobs_of(tx, file.n)
        try:
            identity = self.keyring.open(file.key_id)
            for blob in blobs:
                yield from sealing.unsealed(self.blobs, blob.name, identity)
        except (KeyErased, BlobErased) as error:
            if not artifacts.is_active(self.database, file.n):
                raise file_rows.missing(file.id) from error
            raise Error(
                Kind.UNAVAILABLE,
                f"The stored bytes of {file.id} are gone. Upload it again.",
                code="stored_bytes_damaged",
            ) from error

    def refuse(self, caller: Caller, refused: Error) -> None:
        """Record that a file was refused, unless the disk is full."""
        refusals.refuse(
            self.database,
            audit.EventType.FILE_REFUSED,
            refused,
            organization_id=caller.organization_id,
            actor=caller.actor,
            resource_id="",
            reason=refused.kind.value,
            # Field names of a form are arbitrary text: record only known ones.
            param=refused.param if refused.param in PARAMS else None,
        )

    def _bring_in(
        self,
        owner: Owner,
        actor: Actor,
        reader: Readable,
        describe: Callable[[], Description],
        within: Callable[[Tx, File], None],
    ) -> File:
        watched = Watched(reader)
        with self.drafts.importing(owner.project_id) as draft:
            sealed = self.seal(draft, CONTENT, watched)
            described = describe()
            watched.check(described.purpose)
            name = self.seal_name(draft, described.filename)
            with self.database.write() as tx:
                file = self.register(
                    tx, draft, owner, described, [sealed], sealed_name=name, actor=actor
                )
                within(tx, file)
        return file

    def seal(self, draft: Draft, name: str, reader: Watched) -> Sealed:
        """Encrypt the reader as one blob of a draft."""
        reserving = Reserving(self.drafts, draft)
        blob = blob_name(draft.internal_id, name)
        try:
            stored = sealing.seal(reader, draft.recipient, self.blobs, blob, digest=reserving)
        except BaseException:
            reserving.return_unused(failed=True)
            raise
        if not draft.reserved:  # an upload's, which stays; others are settled now
            reserving.return_unused()
        return Sealed(SealedBlob(blob, reader.bytes, stored), reserving.hexdigest())

    def seal_name(self, draft: Draft, filename: str) -> bytes:
        """Return the encrypted name for the row of this draft's file. Raises Error(UNAVAILABLE)."""
        return self._seal_text(draft, draft.internal_id, filename)

    def seal_source(self, draft: Draft, source: str) -> bytes:
        """Return as it is stored where this draft's file came from. Raises Error(UNAVAILABLE)."""
        return self._seal_text(draft, _context_of_source(draft.internal_id), source)

    def _seal_text(self, draft: Draft, context: str, text: str) -> bytes:
        try:
            secret = sealed_text.key_of(self.keyring, draft.key_id)
        except KeyErased as error:
            raise Error(Kind.UNAVAILABLE, GONE) from error
        return sealed_text.seal(secret, context, text)

    def origin_of(self, file: File) -> Origin:
        """Return what a file was made from. Raises Error(NOT_FOUND) if it is deleted in the meantime."""
        file_ids, sealed = lineage.origins_of(self.database, file.n)
        if sealed is None:
            return Origin(file_ids)
        try:
            secret = sealed_text.key_of(self.keyring, file.key_id)
        except KeyErased as error:
            raise file_rows.missing(file.id) from error
        context = _context_of_source(file.internal_id)
        return Origin(file_ids, sealed_text.unseal(secret, context, sealed))

    def named(self, found: Sequence[File]) -> list[File]:
        """Return files with their names, without those whose key was erased in the meantime."""
        secrets = sealed_text.keys_of(
            self.keyring, {one.key_id for one in found if one.sealed_name}
        )
        shown = []
        for one in found:
            if one.sealed_name is None:
                shown.append(one)  # Written by an older version, and not encrypted yet.
            elif secret := secrets.get(one.key_id):
                name = sealed_text.unseal(secret, one.internal_id, one.sealed_name)
                shown.append(replace(one, filename=name))
        return shown

    def everything(
        self,
        caller: Caller,
        *,
        purpose: str | None = None,
        after: str | None = None,
        is_ascending: bool = False,
        limit: int = 1000,
    ) -> Iterator[File]:
        """Return the files of the caller's project with their names, newest first unless `is_ascending`.

        Lazy, in constant memory; `limit` is how many the caller will take. `after` is the cursor.
        Raises Error(FORBIDDEN, INVALID).
        """
        authorize(caller, Action.READ_FILES)
        # Before the first page: a cursor must be refused before the response begins.
        start = file_rows.position(self.database, caller, after, is_ascending=is_ascending)
        found = file_rows.pages(
            self.database,
            caller,
            start=start,
            purpose=purpose,
            is_ascending=is_ascending,
            size=min(limit, 1000),
        )
        return chain.from_iterable(map(self.named, found))

    def page(
        self, caller: Caller, *, purpose: str | None, after: str | None, limit: int
    ) -> tuple[list[File], str | None]:
        """Return up to `limit` files of the caller's project, newest first, after the one with the id `after`.

        It looks through LOOKED_AT_MAX at most, so that a purpose that few have takes no longer among a million: the
        second is the id of the last that was looked at, if older ones were not. Raises Error(FORBIDDEN, INVALID).
        """
        authorize(caller, Action.READ_FILES)
        start = file_rows.position(self.database, caller, after, is_ascending=False)
        last = None
        if purpose is not None:
            last = file_rows.last_looked_at(self.database, caller, start=start, most=LOOKED_AT_MAX)
        bound = cursors.BEFORE_ALL if last is None else last[0]
        found = file_rows.pages(
            self.database, caller, start=start, purpose=purpose, size=limit, last=bound
        )
        rows = list(islice(chain.from_iterable(map(self.named, found)), limit))
        return rows, None if last is None or len(rows) == limit else last[1]

    def retrieve(self, caller: Caller, file_id: str) -> File:
        """Return a file of the caller's project with its name. Raises Error(FORBIDDEN, NOT_FOUND)."""
        authorize(caller, Action.READ_FILES)
        file = file_rows.find(self.database, caller, file_id)
        if file is None or not (found := self.named([file])):
            raise file_rows.missing(file_id)
        return found[0]

    def register(
        self,
        tx: Tx,
        draft: Draft,
        owner: Owner,
        described: Description,
        sealed: list[Sealed],
        *,
        sealed_name: bytes,
        actor: Actor,
    ) -> File:
        """Turn a draft into a file of these blobs, in this order, in the caller's transaction."""
        size = sum(one.blob.bytes for one in sealed)
        text = manifest(described.purpose, size, [one.sha256 for one in sealed])
        seconds = described.expires_seconds
        file = File(
            n=0,
            id=mint(Prefix.FILE),
            internal_id=draft.internal_id,
            organization_id=owner.organization_id,
            project_id=owner.project_id,
            state=State.ACTIVE,
            epoch=1,
            key_id=draft.key_id,
            manifest_sha256=sha256(text.encode()).hexdigest(),
            created_by=owner.created_by,
            created_at=tx.now_micros,
            filename=described.filename,
            purpose=described.purpose,
            bytes=size,
            expires_at=None if seconds is None else tx.now_micros + seconds * 1_000_000,
            sealed_name=sealed_name,
        )
        file = file_rows.register(tx, file, manifest=text, blobs=[one.blob for one in sealed])
        self.drafts.settle(tx, draft.internal_id)
        audit.record(
            tx,
            audit.EventType.FILE_CREATED,
            organization_id=file.organization_id,
            actor=actor,
            resource_id=file.id,
            purpose=file.purpose,
            bytes=file.bytes,
        )
        outbox.publish(tx, file.organization_id, WebhookEventType.FILE_CREATED, file.id)
        return file


def _context_of_source(internal_id: str) -> str:
    """Return what a sealed source is bound to, so that it never passes for the file's name."""
    return f"{internal_id} source"


def manifest(purpose: str, size: int, sealed_sha256: list[str]) -> str:
    """Return a file's manifest, whose digest is in the receipt for ever.

    It lists digests of the *ciphertext*, which cannot be computed from the plaintext: so no
    guess of a deleted file's content can be confirmed by the log.
    """
    fields = {"blobs_sha256": sealed_sha256, "bytes": size, "purpose": purpose}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))

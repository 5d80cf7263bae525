"""Uploads: large files sent in parts, each encrypted on arrival under the future file's key.

`pending` becomes `completed`, `cancelled` or `expired`, once: the first commit wins, and
others get an error. A part's row is written before its bytes are stored (write-ahead), so that everything a crash
leaves is recorded in rows, and `tidy` completes an interrupted end.
"""

import hashlib
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from tunewarden import audit
from tunewarden.artifacts import sealed_text, sealing
from tunewarden.artifacts.blobs import BlobErased, ErasableBlobs
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.artifacts.sealing import Readable
from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint
from tunewarden.registry import (
    drafts,
    file_rows,
    file_rules,
    lineage,
    upload_parts,
    upload_rows,
)
from tunewarden.registry.drafts import Draft, DraftKind, Drafts, blob_name
from tunewarden.registry.file_rows import File
from tunewarden.registry.file_rules import HEAD_BYTES, Description, Watched
from tunewarden.registry.files import Files, Owner, Sealed
from tunewarden.registry.lineage import Origin
from tunewarden.registry.upload_parts import Part
from tunewarden.registry.upload_rows import Status, Upload

LIFE_MICROS = 60 * 60 * 1_000_000
# How long after its upload's end an incomplete part may still be arriving.
COMING_MICROS = 2 * 60 * 60 * 1_000_000
# How long a new draft may stay unclaimed.
MAKING_MICROS = 10 * 60 * 1_000_000
NO_ORIGIN = Origin()
# Uploads, drafts or parts per batch of `expire` and `tidy`.
PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class InProgress:
    """An upload with its name, and what has arrived of it whole."""

    upload: Upload
    parts: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Uploads:
    """The operations and their dependencies. `bytes_max` limits the parts of an upload together."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    drafts: Drafts
    files: Files
    bytes_max: int

    def precheck(self, caller: Caller) -> None:
        """Check whether the caller may create and complete uploads, before a body is read. Raises Error(FORBIDDEN)."""
        authorize(caller, Action.WRITE_FILES)

    def precheck_part(self, caller: Caller) -> None:
        """Check whether a part may be added, before its body is read. Raises what `Files.precheck` does."""
        self.files.precheck(caller)

    def create(
        self, caller: Caller, described: Description, *, mime_type: str, size: int
    ) -> Upload:
        """Begin an upload of `size` bytes. Raises Error(FORBIDDEN), Error(INVALID), Error(TOO_LARGE)."""
        authorize(caller, Action.WRITE_FILES)
        self.files.memory.check()
        file_rules.check_mime_type(mime_type)
        if size < 0:
            raise Error(Kind.INVALID, "bytes must not be negative.", param="bytes")
        if size > self.bytes_max:
            raise Error(
                Kind.TOO_LARGE, f"Upload too large (limit {self.bytes_max} bytes).", param="bytes"
            )
        with self.database.read() as tx:
            upload_rows.check_unfinished(tx, caller)
            self.drafts.quota.grant(tx, caller.project_id, size, size)
            self.drafts.quota.check_room_for_file(tx, caller.project_id)
        draft = self.drafts.create(DraftKind.UPLOAD, caller.project_id)
        try:
            name = self.files.seal_name(draft, described.filename)
            with self.database.write() as tx:
                keys.authorize_now(tx, caller, Action.WRITE_FILES)
                upload_rows.claim_draft(tx, draft.internal_id)
                upload = upload_rows.insert(
                    tx,
                    Upload(
                        n=0,
                        id=mint(Prefix.UPLOAD),
                        internal_id=draft.internal_id,
                        organization_id=caller.organization_id,
                        project_id=caller.project_id,
                        filename=described.filename,
                        sealed_name=name,
                        purpose=described.purpose,
                        mime_type=mime_type,
                        bytes=size,
                        status=Status.PENDING,
                        file_n=None,
                        file_seconds=described.expires_seconds,
                        created_by=caller.key_id,
                        created_at=tx.now_micros,
                        expires_at=tx.now_micros + LIFE_MICROS,
                    ),
                )
                upload_rows.record(tx, audit.EventType.UPLOAD_CREATED, upload, caller.actor)
        except BaseException:
            self.drafts.erase(draft.internal_id)
            raise
        return upload

    def add_part(self, caller: Caller, upload_id: str, reader: Readable) -> Part:
        """Encrypt `reader` as one part of a pending upload.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID), Error(TOO_LARGE) and what the
        reader raises; then nothing of the part is left.
        """
        authorize(caller, Action.WRITE_FILES)
        self.files.memory.check()
        part_id = mint(Prefix.UPLOAD_PART)
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.WRITE_FILES)
            upload = upload_rows.pending(tx, caller, upload_id)
            upload_parts.check_count(tx, upload)
            blob = blob_name(upload.internal_id, part_id)
            upload_parts.insert(tx, upload, part_id, blob)
        sealed: Sealed | None = None
        try:
            sealed = self.files.seal(self._draft(upload), part_id, Watched(reader))
            with self.database.write() as tx:
                keys.authorize_now(tx, caller, Action.WRITE_FILES)
                pending = upload_rows.pending(tx, caller, upload_id)
                upload_parts.check_room(tx, pending, sealed.blob.bytes)
                added = audit.EventType.UPLOAD_PART_ADDED
                upload_rows.record(tx, added, pending, caller.actor, part=part_id)
                return upload_parts.make_whole(tx, part_id, sealed)
        except BaseException:
            self._erase_parts([(part_id, blob)])
            if sealed is not None:
                self.drafts.unreserve(upload.internal_id, sealed.blob.sealed_bytes)
            raise

    def complete(
        self,
        caller: Caller,
        upload_id: str,
        part_ids: Sequence[str],
        *,
        md5: str | None = None,
        size: int | None = None,
        origin: Origin = NO_ORIGIN,
        is_retry: bool = False,
    ) -> tuple[Upload, File | None]:
        """Create a file from these parts, in this order; return the upload and its file.

        `size` in bytes is given by who did not know it when the upload began: at most what was announced then.
        Idempotent for retries (`is_retry`): a completed upload is returned as it is, without its file if that
        was deleted. Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID) with nothing changed.
        """
        authorize(caller, Action.WRITE_FILES)
        if md5 is not None:
            file_rules.check_md5(md5)
        with self.database.read() as tx:
            upload = upload_rows.own(tx, caller, upload_id)
            if is_retry and upload.status is Status.COMPLETED:
                return self._named(upload), self._file(upload)
            upload_rows.check_pending(tx, upload)
            upload = upload_rows.resized(upload, size)
            parts = upload_parts.chosen(tx, upload, part_ids)
        draft = self._draft(upload)
        filename = self._named(upload).filename
        self._check_content(upload, draft, parts, md5)
        name = upload.sealed_name or self.files.seal_name(draft, filename)
        source = None if origin.source is None else self.files.seal_source(draft, origin.source)
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.WRITE_FILES)
            upload = upload_rows.own(tx, caller, upload_id)
            if is_retry and upload.status is Status.COMPLETED:  # by the first attempt
                return self._named(upload), self._file(upload)
            upload_rows.check_pending(tx, upload)
            self.drafts.quota.check_room_for_file(tx, caller.project_id)
            upload = upload_rows.resized(upload, size)
            described = Description(filename, upload.purpose, upload.file_seconds)
            file = self.files.register(
                tx,
                draft,
                Owner(upload.organization_id, upload.project_id, upload.created_by),
                described,
                [part.sealed for part in parts],
                sealed_name=name,
                actor=caller.actor,
            )
            lineage.note(tx, caller, file, origin, source)
            upload_rows.complete(tx, upload, file.n)
            for part in parts:  # now the file's
                upload_parts.forget(tx, part.id)
            upload_rows.record(
                tx, audit.EventType.UPLOAD_COMPLETED, upload, caller.actor, file=file.id
            )
        with suppress(Error):  # The commit stands; `tidy` erases the rest later.
            self._erase_rest(upload)
        return replace(upload, filename=filename, status=Status.COMPLETED, file_n=file.n), file

    def in_progress(self, caller: Caller, *, after: str | None, limit: int) -> list[InProgress]:
        """Return up to `limit` uploads in progress of the caller's project, the newest first.

        Raises Error(FORBIDDEN), Error(INVALID) for an unknown cursor.
        """
        authorize(caller, Action.READ_FILES)
        with self.database.read() as tx:
            found = [
                InProgress(one, *upload_parts.stored(tx, one.n))
                for one in upload_rows.page(tx, caller, after=after, limit=limit)
            ]
        return [replace(one, upload=self._named(one.upload)) for one in found]

    def cancel(self, caller: Caller, upload_id: str) -> Upload:
        """Cancel a pending upload and erase its parts, key first. Idempotent.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID).
        """
        authorize(caller, Action.WRITE_FILES)
        with self.database.read() as tx:
            filename = self._named(upload_rows.own(tx, caller, upload_id)).filename
        with self.database.write(below_floor=True) as tx:
            keys.authorize_now(tx, caller, Action.WRITE_FILES)
            upload = upload_rows.own(tx, caller, upload_id)
            if upload.status is not Status.CANCELLED:
                upload_rows.check_pending(tx, upload)
                upload_rows.end(tx, upload, Status.CANCELLED)
                upload_rows.record(tx, audit.EventType.UPLOAD_CANCELLED, upload, caller.actor)
        self._erase_all(upload)
        return replace(upload, filename=filename, status=Status.CANCELLED)

    def expire(self) -> int:
        """Expire pending uploads and erase their parts; return their number."""
        with self.database.read() as tx:
            due = upload_rows.due(tx, limit=PAGE_SIZE)
        count = 0
        for upload in due:
            with self.database.write(below_floor=True) as tx:
                if not upload_rows.end(tx, upload, Status.EXPIRED):
                    continue  # Completed or cancelled at the last moment.
                upload_rows.record(tx, audit.EventType.UPLOAD_EXPIRED, upload, audit.SERVER)
            self._erase_all(upload)
            count += 1
        return count

    def tidy(self) -> None:
        """Erase leftovers of crashes: of ended uploads, and of those that never began."""
        with self.database.read() as tx:
            before = tx.now_micros - MAKING_MICROS
            left = drafts.unclaimed(tx, before=before, limit=PAGE_SIZE)
            ended = upload_rows.untidy(tx, limit=PAGE_SIZE)
        for internal_id in left:
            self.drafts.erase(internal_id)
        for n, internal_id in ended:
            self._tidy(n, internal_id)

    def _tidy(self, n: int, internal_id: str) -> None:
        """Erase the leftovers of an ended upload; note when no part can arrive any more."""
        self.drafts.erase(internal_id)
        with self.database.read() as tx:
            before = tx.now_micros - COMING_MICROS
            parts = upload_parts.stale(tx, n, before=before, limit=PAGE_SIZE)
        self._erase_parts(parts)
        with self.database.write(below_floor=True) as tx:
            upload_rows.note_tidy(tx, n)

    def _file(self, upload: Upload) -> File | None:
        if (
            upload.file_n is None
            or (file := file_rows.of_number(self.database, upload.file_n)) is None
        ):
            return None
        return next(iter(self.files.named([file])), None)

    def _named(self, upload: Upload) -> Upload:
        """Return an upload with its name, which is encrypted under the key of its draft or its file."""
        if upload.sealed_name is None:
            return upload
        row = self.database.peek(
            "SELECT key_id FROM drafts WHERE internal_id = :id"
            " UNION ALL SELECT key_id FROM artifacts WHERE internal_id = :id",
            id=upload.internal_id,
        )
        secret = sealed_text.keys_of(self.keyring, [row[0]]).get(row[0]) if row else None
        if secret is None:  # The upload ended, or its file was deleted.
            return upload
        name = sealed_text.unseal(secret, upload.internal_id, upload.sealed_name)
        return replace(upload, filename=name)

    def _draft(self, upload: Upload) -> Draft:
        draft = self.drafts.find(upload.internal_id)
        if draft is None:  # cancelled in the meantime
            raise upload_rows.gone()
        return draft

    def _check_content(
        self, upload: Upload, draft: Draft, parts: Sequence[Part], md5: str | None
    ) -> None:
        """Check the content's checksum and beginning. Raises Error(INVALID)."""
        if md5 is None and upload.purpose != file_rules.FINE_TUNE:
            return
        digest = hashlib.md5(usedforsecurity=False)
        head = b""
        try:
            with closing(self._content(draft, parts)) as chunks:
                for chunk in chunks:
                    head += chunk[: HEAD_BYTES - len(head)]
                    if md5 is not None:
                        digest.update(chunk)
                    elif len(head) == HEAD_BYTES:
                        break
        except (KeyErased, BlobErased) as error:  # cancelled in the meantime
            raise upload_rows.gone() from error
        if md5 is not None and digest.hexdigest() != md5.lower():
            raise Error(Kind.INVALID, "The parts do not match this MD5 checksum.", param="md5")
        file_rules.check_beginning(upload.purpose, head, is_whole=upload.bytes <= HEAD_BYTES)

    def _content(self, draft: Draft, parts: Sequence[Part]) -> Generator[bytes, None, None]:
        identity = self.keyring.open(draft.key_id)
        for part in parts:
            yield from sealing.unsealed(self.blobs, part.sealed.blob.name, identity)

    def _erase_all(self, upload: Upload) -> None:
        self.drafts.erase(upload.internal_id)
        with self.database.write(below_floor=True) as tx:
            # Parts still arriving erase themselves when they find the upload ended.
            upload_parts.forget_whole(tx, upload.n)

    def _erase_rest(self, upload: Upload) -> None:
        with self.database.read() as tx:
            parts = upload_parts.whole(tx, upload.n)
        self._erase_parts(parts)

    def _erase_parts(self, parts: Sequence[tuple[str, str]]) -> None:
        for part_id, blob in parts:
            self.blobs.erase(blob)
            with self.database.write(below_floor=True) as tx:
                upload_parts.forget(tx, part_id)

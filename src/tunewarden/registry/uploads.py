"""Uploads: a large file that comes in parts, sealed as they come under the key that the file will have.

`pending` becomes `completed`, `cancelled` or `expired`, once: whoever commits that first has won, and
everybody else is told. A part's row is written before its bytes are stored, so that whatever a crash
leaves of an upload is known by rows, and `tidy` finishes what its end began.
"""

import hashlib
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from tunewarden import audit
from tunewarden.artifacts import sealing
from tunewarden.artifacts.blobs import BlobErased, ErasableBlobs
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.artifacts.sealing import Readable
from tunewarden.db.database import Database, Row
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint
from tunewarden.registry import file_rules, files, upload_rows
from tunewarden.registry.drafts import Draft, DraftKind, Drafts, blob_name
from tunewarden.registry.file_rules import HEAD_BYTES, Description
from tunewarden.registry.files import File, Files, Owner, Watched
from tunewarden.registry.upload_rows import Part, Status, Upload

LIFE_MICROS = 60 * 60 * 1_000_000
# How long a part that is not whole may still be coming, after its upload has ended.
COMING_MICROS = 2 * 60 * 60 * 1_000_000
# How long a new draft may wait to be told whose it is.
MAKING_MICROS = 10 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Uploads:
    """The operations and what they need. `bytes_max` is for all parts of an upload."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    drafts: Drafts
    files: Files
    bytes_max: int

    def create(
        self, caller: Caller, described: Description, *, mime_type: str, size: int
    ) -> Upload:
        """Begin an upload of `size` bytes. Raises Error(FORBIDDEN), Error(INVALID), Error(TOO_LARGE)."""
        authorize(caller, Action.WRITE_FILES)
        file_rules.check_mime_type(mime_type)
        if size < 0:
            raise Error(Kind.INVALID, "bytes must not be negative.", param="bytes")
        if size > self.bytes_max:
            raise Error(
                Kind.TOO_LARGE, f"An upload may have {self.bytes_max} bytes.", param="bytes"
            )
        draft = self.drafts.create(DraftKind.UPLOAD)
        upload_id = mint(Prefix.UPLOAD)
        try:
            with self.database.write() as tx:
                upload_rows.claim_draft(tx, draft.internal_id)
                tx.run(
                    "INSERT INTO uploads (id, internal_id, organization_id, project_id, filename,"
                    " purpose, mime_type, bytes, status, file_seconds, created_by, created_at,"
                    " expires_at) VALUES (:id, :internal, :organization, :project, :filename, :purpose,"
                    " :mime, :bytes, 'pending', :seconds, :by, :now, :expires)",
                    id=upload_id,
                    internal=draft.internal_id,
                    organization=caller.organization_id,
                    project=caller.project_id,
                    filename=described.filename,
                    purpose=described.purpose,
                    mime=mime_type,
                    bytes=size,
                    seconds=described.expires_seconds,
                    by=caller.key_id,
                    now=tx.now_micros,
                    expires=tx.now_micros + LIFE_MICROS,
                )
                upload = upload_rows.own(tx, caller, upload_id)
                upload_rows.record(tx, audit.EventType.UPLOAD_CREATED, upload, caller.actor)
        except BaseException:
            self.drafts.erase(draft.internal_id)
            raise
        return upload

    def add_part(self, caller: Caller, upload_id: str, reader: Readable) -> Part:
        """Seal what `reader` yields as one part of a pending upload.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID), Error(TOO_LARGE) and whatever the
        reader raises; then nothing of the part is left.
        """
        authorize(caller, Action.WRITE_FILES)
        part_id = mint(Prefix.UPLOAD_PART)
        with self.database.write() as tx:
            upload = upload_rows.pending(tx, caller, upload_id)
            upload_rows.check_count(tx, upload)
            blob = blob_name(upload.internal_id, part_id)
            tx.run(
                "INSERT INTO upload_parts VALUES (:id, :upload, :blob, 0, 0, 0, '', :now)",
                id=part_id,
                upload=upload.n,
                blob=blob,
                now=tx.now_micros,
            )
        try:
            sealed = self.files.seal(self._draft(upload), part_id, Watched(reader))
            with self.database.write() as tx:
                upload_rows.check_room(
                    tx, upload_rows.pending(tx, caller, upload_id), sealed.blob.bytes
                )
                return upload_rows.make_whole(tx, part_id, sealed)
        except BaseException:
            self._erase_parts([(part_id, blob)])
            raise

    def complete(
        self,
        caller: Caller,
        upload_id: str,
        part_ids: Sequence[str],
        *,
        md5: str | None = None,
        is_retry: bool = False,
    ) -> tuple[Upload, File | None]:
        """Make a file of these parts, in this order; return the upload and its file.

        A repeated call (`is_retry`) that finds it completed gets it as it is, without its file if that
        was deleted. Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID) with nothing changed.
        """
        authorize(caller, Action.WRITE_FILES)
        if md5 is not None:
            file_rules.check_md5(md5)
        with self.database.read() as tx:
            upload = upload_rows.own(tx, caller, upload_id)
            if is_retry and upload.status is Status.COMPLETED:
                return upload, self._file(upload)
            upload_rows.check_pending(tx, upload)
            parts = upload_rows.chosen(tx, upload, part_ids)
        draft = self._draft(upload)
        self._check_content(upload, draft, parts, md5)
        with self.database.write() as tx:
            upload = upload_rows.own(tx, caller, upload_id)
            if is_retry and upload.status is Status.COMPLETED:  # By the call that this one repeats.
                return upload, self._file(upload)
            upload_rows.check_pending(tx, upload)
            described = Description(upload.filename, upload.purpose, upload.file_seconds)
            owner = Owner(upload.organization_id, upload.project_id, upload.created_by)
            file = self.files.register(
                tx, draft, owner, described, [part.sealed for part in parts], actor=caller.actor
            )
            tx.run(
                "UPDATE uploads SET status = 'completed', file_n = :file WHERE n = :n",
                file=file.n,
                n=upload.n,
            )
            for part in parts:
                tx.run("DELETE FROM upload_parts WHERE id = :id", id=part.id)
            upload_rows.record(
                tx, audit.EventType.UPLOAD_COMPLETED, upload, caller.actor, file=file.id
            )
        with suppress(Error):  # Completed it is; what it does not need is then erased by `tidy`.
            self._erase_rest(upload)
        return replace(upload, status=Status.COMPLETED, file_n=file.n), file

    def cancel(self, caller: Caller, upload_id: str) -> Upload:
        """Cancel a pending upload and erase its parts, key first; once more changes nothing.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID).
        """
        authorize(caller, Action.WRITE_FILES)
        with self.database.write() as tx:
            upload = upload_rows.own(tx, caller, upload_id)
            if upload.status is not Status.CANCELLED:
                upload_rows.check_pending(tx, upload)
                upload_rows.end(tx, upload, Status.CANCELLED)
                upload_rows.record(tx, audit.EventType.UPLOAD_CANCELLED, upload, caller.actor)
        self._erase_all(upload)
        return replace(upload, status=Status.CANCELLED)

    def expire(self) -> int:
        """End the uploads whose time is over and erase their parts; return how many there were."""
        with self.database.read() as tx:
            rows = tx.rows(
                f"SELECT {upload_rows.COLUMNS} FROM uploads WHERE status = 'pending'"  # noqa: S608
                " AND expires_at <= :now ORDER BY expires_at LIMIT 1000",
                now=tx.now_micros,
            )
        count = 0
        for row in rows:
            upload = upload_rows.of_row(row)
            with self.database.write() as tx:
                if not upload_rows.end(tx, upload, Status.EXPIRED):
                    continue  # Completed or cancelled at the last moment.
                upload_rows.record(tx, audit.EventType.UPLOAD_EXPIRED, upload, audit.SERVER)
            self._erase_all(upload)
            count += 1
        return count

    def tidy(self) -> None:
        """Erase what a crash left of uploads that have ended, and of those that never began."""
        with self.database.read() as tx:
            drafts = tx.rows(
                "SELECT internal_id FROM drafts WHERE kind = 'upload' AND is_claimed = 0"
                " AND created_at < :before LIMIT 1000",
                before=tx.now_micros - MAKING_MICROS,
            )
            ended = tx.rows(
                "SELECT n, internal_id FROM uploads WHERE status <> 'pending' AND is_tidy = 0 LIMIT 1000"
            )
        for (internal_id,) in drafts:
            self.drafts.erase(internal_id)
        for n, internal_id in ended:
            self._tidy(n, internal_id)

    def _tidy(self, n: int, internal_id: str) -> None:
        """Erase what is left of an upload that has ended; note when nothing can come any more."""
        self.drafts.erase(internal_id)
        with self.database.read() as tx:
            rows = tx.rows(
                "SELECT id, blob FROM upload_parts WHERE upload_n = :n"
                " AND (is_whole = 1 OR created_at < :before) LIMIT 1000",
                n=n,
                before=tx.now_micros - COMING_MICROS,
            )
        self._erase_parts(rows)
        with self.database.write() as tx:
            tx.run(
                "UPDATE uploads SET is_tidy = 1 WHERE n = :n"
                " AND NOT EXISTS (SELECT 1 FROM upload_parts WHERE upload_n = :n)",
                n=n,
            )

    def _file(self, upload: Upload) -> File | None:
        return None if upload.file_n is None else files.of_number(self.database, upload.file_n)

    def _draft(self, upload: Upload) -> Draft:
        try:
            return self.drafts.open(upload.internal_id)
        except KeyErased as error:
            raise upload_rows.gone() from error

    def _check_content(
        self, upload: Upload, draft: Draft, parts: Sequence[Part], md5: str | None
    ) -> None:
        """Return if the content has this checksum and a fit beginning. Raises Error(INVALID)."""
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
        except (KeyErased, BlobErased) as error:  # It has been cancelled meanwhile.
            raise upload_rows.gone() from error
        if md5 is not None and digest.hexdigest() != md5.lower():
            raise Error(Kind.INVALID, "The parts do not have this MD5 checksum.", param="md5")
        file_rules.check_beginning(upload.purpose, head, is_whole=upload.bytes <= HEAD_BYTES)

    def _content(self, draft: Draft, parts: Sequence[Part]) -> Generator[bytes, None, None]:
        identity = self.keyring.open(draft.key_id)
        for part in parts:
            yield from sealing.unsealed(self.blobs, part.sealed.blob.name, identity)

    def _erase_all(self, upload: Upload) -> None:
        self.drafts.erase(upload.internal_id)
        with self.database.write() as tx:
            # Those that still come end by themselves, and find that it has ended.
            tx.run("DELETE FROM upload_parts WHERE upload_n = :n AND is_whole = 1", n=upload.n)

    def _erase_rest(self, upload: Upload) -> None:
        with self.database.read() as tx:
            rows = tx.rows(
                "SELECT id, blob FROM upload_parts WHERE upload_n = :n AND is_whole = 1", n=upload.n
            )
        self._erase_parts(rows)

    def _erase_parts(self, parts: Sequence[Row]) -> None:
        for part_id, blob in parts:
            self.blobs.erase(blob)
            with self.database.write() as tx:
                tx.run("DELETE FROM upload_parts WHERE id = :id", id=part_id)

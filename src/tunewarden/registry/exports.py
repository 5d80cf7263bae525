"""Exports: a model's files leave the server in plaintext, for an Owner.

No deletion reaches what left. So an export is recorded before its first byte is sent, in this order:

1. one transaction: the export's row and its audit event, for an Owner, of a model that is not being deleted;
2. its leaf in the log, which no restore of the database takes back (D10);
3. another transaction: where the leaf is.

A crash in between leaves an export on record of which no byte was sent; never the other way.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from zlib import crc32

from tunewarden import __version__, audit
from tunewarden.artifacts import sealing, stored_zip
from tunewarden.artifacts.blobs import BlobErased, Blobs
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.artifacts.plain_memory import PlainMemory
from tunewarden.artifacts.stored_zip import Entry
from tunewarden.clock import from_micros, iso
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts, export_rows, models, restore_marks
from tunewarden.registry.artifacts import VISIBLE, Artifact, ArtifactKind, SealedBlob
from tunewarden.registry.drafts import SEALED
from tunewarden.registry.export_rows import EXPORTS_MAX, Export
from tunewarden.registry.models import Model
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden_receipts import leaf, receipt
from tunewarden_receipts.leaf import Disclosure, ExportLeaf

# Of a quarter of a MiB each: who deletes the model waits for the step that runs.
PIECES_A_STEP = 16


@dataclass(frozen=True, slots=True)
class Exports:
    """The export operation. `mark_log` raises the high-water mark of the log's size."""

    database: Database
    keyring: Keyring
    blobs: Blobs
    memory: PlainMemory
    open_log: Callable[[], tuple[Log, LogSigner]]
    mark_log: Callable[[int], None]

    def find(self, caller: Caller, model_id: str) -> Model:
        """Return a model, active or archived, that the caller may export.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(MISCONFIGURED) if memory may be swapped to a disk.
        """
        authorize(caller, Action.EXPORT)
        model = models.find(self.database, caller, model_id)
        if model is None:
            raise models.missing(model_id)
        if not artifacts.is_public(self.database, model.n):
            self.memory.check()
        return model

    def size(self, model: Model) -> int:
        """Return how many bytes `archive` yields."""
        with self.database.read() as tx:
            blobs = artifacts.blobs_of(tx, model.n)
        return stored_zip.length([Entry(_name(one), one.bytes, 0, tuple) for one in blobs])

    def archive(self, model: Model) -> Generator[bytes, None, None]:
        """Yield a zip of the model's files, each exactly as it was sealed, in bounded memory.

        Each is decrypted twice: before the first piece, so that damage is found before anything is sent, and for its
        content. The first time yields empty pieces, so that no step takes long. Close the generator to end early. The
        caller must hold the model's guard.

        Raises what `models.missing` returns if the model is deleted in the meantime, Error(UNAVAILABLE) if stored data is
        damaged.
        """
        with self.database.read() as tx:
            blobs = artifacts.blobs_of(tx, model.n)
        try:
            identity = self.keyring.open(model.key_id)
            entries = []
            for blob in blobs:
                content = partial(sealing.unsealed, self.blobs, blob.name, identity)
                crc = yield from _crc(content)
                entries.append(Entry(_name(blob), blob.bytes, crc, content))
            yield from stored_zip.pieces(entries)
        except (KeyErased, BlobErased) as error:
            with self.database.read() as tx:
                if not _is_there(tx, model):
                    raise models.missing(model.id) from error
            raise Error(
                Kind.UNAVAILABLE,
                f"The stored bytes of {model.id} are gone. Import it again.",
                code="stored_bytes_damaged",
            ) from error

    def record(self, caller: Caller, model: Model) -> Export:
        """Record an export, durably and in the log; only then may bytes be sent. The caller must hold the model's guard.

        Raises Error(FORBIDDEN, UNAUTHENTICATED, NOT_FOUND), Error(CONFLICT) for too many exports, Error(UNAVAILABLE),
        Error(STORAGE_FULL).
        """
        log, signer = self.open_log()
        since = log.size()
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.EXPORT)
            if not _is_there(tx, model):
                raise models.missing(model.id)
            if len(export_rows.of(tx, model.n)) >= EXPORTS_MAX:
                raise Error(
                    Kind.CONFLICT,
                    f"'{model.id}' was exported {EXPORTS_MAX} times, and a receipt can list no more. Use a copy that you"
                    " have.",
                    code="too_many_exports",
                )
            export = Export(mint(Prefix.EXPORT), caller.key_id, tx.now_micros)
            export_rows.insert(tx, model.n, export)
            entry = receipt.sign(receipt.build(_leaf(tx, model, export)), signer)
            audit.record(
                tx,
                audit.EventType.MODEL_EXPORTED,
                organization_id=caller.organization_id,
                actor=caller.actor,
                resource_id=model.id,
                export=export.id,
            )
        [at] = log.append_proven([(entry, since)])
        self.mark_log(at.size)
        with self.database.write(below_floor=True) as tx:
            export_rows.note_leaf(tx, export.id, at.index)
            restore_marks.see_log(tx, at.index + 1)
        return export


def disclosed(export: Export) -> leaf.Export:
    """Return an export as leaves commit to it."""
    return leaf.Export(iso(from_micros(export.exported_at)), export.exported_by)


def _is_there(tx: Tx, model: Model) -> bool:
    """Return whether a model is active or archived now."""
    found = artifacts.find_any(tx, ArtifactKind.MODEL, model.organization_id, model.id)
    return found is not None and found.state in VISIBLE


def _leaf(tx: Tx, model: Model, export: Export) -> ExportLeaf:
    found = artifacts.find_internal(tx, ArtifactKind.MODEL, model.internal_id)
    assert found is not None, "a model's row is never removed"
    said = disclosed(export)
    return ExportLeaf.of(
        disclosure_of(*found, said),
        export_id=export.id,
        internal_id=model.internal_id,
        exported_at=said.exported_at,
        software=f"tunewarden {__version__}",
    )


def disclosure_of(model: Artifact, salt: bytes, export: leaf.Export) -> Disclosure:
    """Return every value that the leaf of an export commits to."""
    return Disclosure(
        salt.hex(),
        artifact_id=model.id,
        organization_id=model.organization_id,
        manifest_sha256=model.manifest_sha256,
        exported=export,
    )


def _name(blob: SealedBlob) -> str:
    """Return the name of a blob's file, such as adapter_config.json."""
    return PurePosixPath(blob.name).name.removesuffix(SEALED)


def _crc(content: Callable[[], Generator[bytes, None, None]]) -> Generator[bytes, None, int]:
    """Return the CRC-32 of a content; yield an empty piece now and then."""
    found = 0
    with closing(content()) as pieces:
        for number, piece in enumerate(pieces, 1):
            found = crc32(piece, found)
            if not number % PIECES_A_STEP:
                yield b""
    return found

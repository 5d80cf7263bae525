"""Files: what clients upload and what jobs leave, each sealed under a key of its own.

A file's name is personal data: it stands in its row alone, never in a receipt, the log or an audit
event, and is emptied when the file's deletion is done (`forget`).
"""

import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

from tunewarden import audit
from tunewarden.artifacts import sealing
from tunewarden.artifacts.blobs import BlobErased, Blobs
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.artifacts.sealing import Readable
from tunewarden.audit import Actor
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts, file_rules
from tunewarden.registry.artifacts import (
    ID_LENGTH_MAX,
    VISIBLE,
    Artifact,
    ArtifactKind,
    SealedBlob,
    State,
    fields_of,
)
from tunewarden.registry.drafts import Draft, Drafts, blob_name
from tunewarden.registry.file_rules import HEAD_BYTES, Description

COLUMNS = f"{artifacts.COLUMNS}, f.filename, f.purpose, f.bytes, f.expires_at"
FROM = "FROM artifacts a JOIN files f ON f.n = a.n"
CONTENT = "content"
_LAST_N = 9_223_372_036_854_775_807


@dataclass(frozen=True, slots=True)
class File(Artifact):
    """A file. `bytes` is its plain size; `expires_at` is in microseconds, None if it stays."""

    filename: str
    purpose: str
    bytes: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a file is, and which key made it."""

    organization_id: str
    project_id: str
    created_by: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """A blob as it was sealed, with the digest of its sealed bytes."""

    blob: SealedBlob
    sha256: str


@dataclass(frozen=True, slots=True)
class Files:
    """Storing files and reading them back."""

    database: Database
    keyring: Keyring
    blobs: Blobs
    drafts: Drafts

    def create(self, caller: Caller, reader: Readable, describe: Callable[[], Description]) -> File:
        """Seal what `reader` yields, and register it as a file of the caller's project.

        `describe` is asked when the reader has ended: a form may say what a file is for after the
        file. Raises Error(FORBIDDEN), Error(INVALID) and whatever the reader raises; then nothing of
        it is left.
        """
        authorize(caller, Action.WRITE_FILES)
        owner = Owner(caller.organization_id, caller.project_id, caller.key_id)
        return self._bring_in(owner, caller.actor, reader, describe, lambda _tx, _file: None)

    def store(
        self,
        owner: Owner,
        *,
        filename: str,
        purpose: str,
        reader: Readable,
        within: Callable[[Tx, File], None] = lambda _tx, _file: None,
    ) -> File:
        """Store a file that the server itself made, such as a job's results.

        `within` is run in the transaction that registers it: both are committed, or neither. When it
        raises, or the reader does, nothing is left.
        """
        made = Description(filename, purpose, None)
        return self._bring_in(owner, audit.SERVER, reader, lambda: made, within)

    def content(self, file: File) -> Generator[bytes, None, None]:
        """Yield a file's plain bytes in order, in little memory. Close it to end early.

        Raises what `missing` returns if the file is deleted meanwhile, Error(UNAVAILABLE) if what is
        stored is damaged, also after some bytes. Whoever serves them holds the file's guard.
        """
        with self.database.read() as tx:
            blobs = artifacts.blobs_of(tx, file.n)
        try:
            identity = self.keyring.open(file.key_id)
            for blob in blobs:
                yield from sealing.unsealed(self.blobs, blob.name, identity)
        except (KeyErased, BlobErased) as error:
            if not artifacts.is_active(self.database, file.n):
                raise missing(file.id) from error
            raise Error(
                Kind.UNAVAILABLE,
                f"The stored bytes of {file.id} are gone. Upload it again.",
                code="stored_bytes_damaged",
            ) from error

    def refuse(self, caller: Caller, refused: Error) -> None:
        """Record that a file was refused."""
        with self.database.write() as tx:
            audit.record(
                tx,
                audit.EventType.FILE_REFUSED,
                organization_id=caller.organization_id,
                actor=caller.actor,
                resource_id="",
                reason=refused.kind.value,
                param=refused.param,
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
        with self.drafts.importing() as draft:
            sealed = self.seal(draft, CONTENT, watched)
            described = describe()
            watched.check(described.purpose)
            with self.database.write() as tx:
                file = self.register(tx, draft, owner, described, [sealed], actor=actor)
                within(tx, file)
        return file

    def seal(self, draft: Draft, name: str, reader: "Watched") -> Sealed:
        """Seal what the reader yields as one blob of a draft."""
        digest = sha256()
        blob = blob_name(draft.internal_id, name)
        stored = sealing.seal(reader, draft.recipient, self.blobs, blob, digest=digest)
        return Sealed(SealedBlob(blob, reader.bytes, stored), digest.hexdigest())

    def register(
        self,
        tx: Tx,
        draft: Draft,
        owner: Owner,
        described: Description,
        sealed: list[Sealed],
        *,
        actor: Actor,
    ) -> File:
        """Make a draft the file of these blobs, in this order, in the caller's transaction."""
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
        )
        n = artifacts.register(
            tx, ArtifactKind.FILE, file, manifest=text, blobs=[one.blob for one in sealed]
        )
        tx.run(
            "INSERT INTO files VALUES (:n, :filename, :purpose, :bytes, :expires)",
            n=n,
            filename=file.filename,
            purpose=file.purpose,
            bytes=file.bytes,
            expires=file.expires_at,
        )
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
        return replace(file, n=n)


class Watched:
    """A reader whose bytes are counted, and whose beginning is kept for a first look."""

    def __init__(self, reader: Readable) -> None:
        self._reader = reader
        self.bytes = 0
        self.head = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        data = self._reader.read(size)
        if self.bytes < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - self.bytes]
        self.bytes += len(data)
        return data

    def check(self, purpose: str) -> None:
        """Return if the beginning is fit for the purpose. Raises Error(INVALID)."""
        file_rules.check_beginning(purpose, self.head, is_whole=self.bytes <= HEAD_BYTES)


def manifest(purpose: str, size: int, sealed_sha256: list[str]) -> str:
    """Return what a file is made of: the digest of this text stands in the receipt, for ever.

    It names the digests of the *sealed* bytes, which nobody can compute from the plain ones: so no
    guess of what a deleted file held can be confirmed by the log.
    """
    fields = {"blobs_sha256": sealed_sha256, "bytes": size, "purpose": purpose}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def find(database: Database, caller: Caller, file_id: str) -> File | None:
    """Return a file of the caller's project, or None: one query for foreign and unknown (I9)."""
    row = database.peek(
        f"SELECT {COLUMNS} {FROM} WHERE a.id = :id AND a.organization_id = :organization"
        " AND a.project_id = :project",
        id=file_id,
        organization=caller.organization_id,
        project=caller.project_id,
    )
    file = File(*fields_of(row)) if row else None
    return file if file is not None and file.state in VISIBLE else None


def of_number(database: Database, n: int) -> File | None:
    """Return a file by its number, or None if it is deleted: for what the server does itself."""
    row = database.peek(f"SELECT {COLUMNS} {FROM} WHERE a.n = :n", n=n)
    file = File(*fields_of(row)) if row else None
    return file if file is not None and file.state in VISIBLE else None


def pages(
    database: Database,
    caller: Caller,
    *,
    purpose: str | None = None,
    after: str | None = None,
    is_ascending: bool = False,
    size: int = 1000,
) -> Iterator[list[File]]:
    """Yield the files of the caller's project in the order of their creation, in flat memory.

    `after` is the id of the last file that was seen, which may be deleted meanwhile; nothing follows
    one that is unknown.
    """
    start = 0 if is_ascending else _LAST_N
    if after is not None:
        row = database.peek(
            "SELECT n FROM artifacts WHERE id = :id AND kind = 'file' AND project_id = :project"
            " AND organization_id = :organization",
            id=after,
            organization=caller.organization_id,
            project=caller.project_id,
        )
        if row is None:
            return
        start = int(row[0])
    sign, order = (">", "ASC") if is_ascending else ("<", "DESC")
    for page in database.pages(
        f"SELECT {COLUMNS}, a.n {FROM} WHERE a.organization_id = :organization AND a.kind = 'file'"
        " AND a.project_id = :project AND a.state = 'active'"
        " AND (:purpose IS NULL OR f.purpose = :purpose)"
        f" AND a.n {sign} COALESCE(:after, :start) ORDER BY a.n {order} LIMIT :size",
        size=size,
        organization=caller.organization_id,
        project=caller.project_id,
        purpose=purpose,
        start=start,
    ):
        yield [File(*fields_of(row[:-1])) for row in page]


def due(database: Database, now_micros: int) -> Iterator[list[File]]:
    """Yield the files that should have expired by now."""
    for page in database.pages(
        # The `+` keeps the order from choosing the plan: it would read every artifact, each second.
        f"SELECT {COLUMNS}, f.n {FROM} WHERE f.expires_at <= :now AND a.state = 'active'"
        " AND +f.n > COALESCE(:after, 0) ORDER BY +f.n LIMIT :size",
        size=100,
        now=now_micros,
    ):
        yield [File(*fields_of(row[:-1])) for row in page]


def forget(tx: Tx, n: int) -> None:
    """Empty what is personal in the rows of a file whose deletion is done; nothing if `n` is none."""
    tx.run("UPDATE files SET filename = '', expires_at = NULL WHERE n = :n", n=n)
    tx.run("UPDATE uploads SET filename = '' WHERE file_n = :n", n=n)


def missing(file_id: str) -> Error:
    """Return the one answer for a file that is unknown, foreign or deleted (I9)."""
    shown = file_id if len(file_id) <= ID_LENGTH_MAX else f"{file_id[:ID_LENGTH_MAX]}…"
    return Error(Kind.NOT_FOUND, f"No such File object: {shown}", param="id")

"""SQL on files: insert, find and list."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tunewarden import ids
from tunewarden.db import cursors, lists
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry import artifacts
from tunewarden.registry.artifacts import (
    VISIBLE,
    Artifact,
    ArtifactKind,
    SealedBlob,
    fields_of,
)

COLUMNS = f"{artifacts.COLUMNS}, f.filename, f.sealed_name, f.purpose, f.bytes, f.expires_at"
FROM = "FROM artifacts a JOIN files f ON f.n = a.n"


@dataclass(frozen=True, slots=True)
class File(Artifact):
    """A file. `bytes` is its plaintext size; `expires_at` is in microseconds, None: never.

    `filename` is empty until `Files.named` has decrypted it.
    """

    filename: str
    sealed_name: bytes | None
    purpose: str
    bytes: int
    expires_at: int | None


def register(tx: Tx, file: File, *, manifest: str, blobs: list[SealedBlob]) -> File:
    """Insert an active file with its blobs, in order; return it with its number."""
    n = artifacts.register(tx, ArtifactKind.FILE, file, manifest=manifest, blobs=blobs)
    tx.run(
        "INSERT INTO files (n, filename, purpose, bytes, expires_at, sealed_name)"
        " VALUES (:n, '', :purpose, :bytes, :expires, :name)",
        n=n,
        name=file.sealed_name,
        purpose=file.purpose,
        bytes=file.bytes,
        expires=file.expires_at,
    )
    return replace(file, n=n)


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
    """Return a file by its number, or None if it is deleted: for the server's own use."""
    row = database.peek(f"SELECT {COLUMNS} {FROM} WHERE a.n = :n", n=n)
    file = File(*fields_of(row)) if row else None
    return file if file is not None and file.state in VISIBLE else None


def position(database: Database, caller: Caller, after: str | None, *, is_ascending: bool) -> int:
    """Return where the page after a cursor begins; its file may have been deleted since. Raises Error(INVALID)."""
    return cursors.position(
        database.peek,
        "SELECT n FROM artifacts WHERE id = :after AND kind = 'file' AND project_id = :project"
        " AND organization_id = :organization",
        after=after,
        first=cursors.BEFORE_ALL if is_ascending else cursors.AFTER_ALL,
        organization=caller.organization_id,
        project=caller.project_id,
    )


def pages(
    database: Database,
    caller: Caller,
    *,
    start: int = cursors.AFTER_ALL,
    purpose: str | None = None,
    is_ascending: bool = False,
    size: int = 1000,
    last: int = cursors.BEFORE_ALL,
) -> Iterator[list[File]]:
    """Yield the files of the caller's project in pages, by creation, in constant memory.

    `start`: see `position`. None that is older than number `last`.
    """
    sign, order = (">", "ASC") if is_ascending else ("<", "DESC")
    for page in database.pages(
        f"SELECT {COLUMNS}, a.n {FROM} WHERE a.organization_id = :organization AND a.kind = 'file'"
        " AND a.project_id = :project AND a.state = 'active'"
        " AND f.purpose = COALESCE(:purpose, f.purpose)"
        f" AND a.n {sign} COALESCE(:after, CAST(:start AS BIGINT)) AND a.n >= :last"
        f" ORDER BY a.n {order} LIMIT :size",
        size=size,
        organization=caller.organization_id,
        project=caller.project_id,
        purpose=purpose,
        start=start,
        last=last,
    ):
        yield [File(*fields_of(row[:-1])) for row in page]


def last_looked_at(
    database: Database, caller: Caller, *, start: int, most: int
) -> tuple[int, str] | None:
    """Return the number and id of the last of the `most` newest files of the caller's project before `start`.

    None if there are fewer.
    """
    row = database.peek(
        "SELECT n, id FROM artifacts WHERE organization_id = :organization AND kind = 'file'"
        " AND project_id = :project AND state = 'active' AND n < :start"
        " ORDER BY n DESC LIMIT 1 OFFSET :others",
        organization=caller.organization_id,
        project=caller.project_id,
        start=start,
        others=most - 1,
    )
    return (int(row[0]), str(row[1])) if row else None


def position_in_organization(database: Database, organization_id: str, after: str | None) -> int:
    """Return where a list of an organization's files, oldest first, begins. Raises Error(INVALID)."""
    return cursors.position(
        database.peek,
        "SELECT n FROM artifacts WHERE id = :after AND kind = 'file' AND organization_id = :organization",
        after=after,
        first=cursors.BEFORE_ALL,
        organization=organization_id,
    )


def pages_of_organization(
    database: Database, organization_id: str, *, start: int, size: int = 200
) -> Iterator[list[File]]:
    """Yield the files of all projects of an organization in pages, oldest first, in constant memory."""
    for page in database.pages(
        f"SELECT {COLUMNS}, a.n {FROM} WHERE a.organization_id = :organization AND a.kind = 'file'"
        " AND a.state = 'active' AND a.n > COALESCE(:after, CAST(:start AS BIGINT)) ORDER BY a.n LIMIT :size",
        size=size,
        organization=organization_id,
        start=start,
    ):
        yield [File(*fields_of(row[:-1])) for row in page]


def totals(database: Database, organization_id: str, *, start: int) -> tuple[int, int]:
    """Return how many files of an organization follow `start`, and how many bytes they have."""
    row = database.peek(
        f"SELECT COUNT(*), COALESCE(SUM(f.bytes), 0) {FROM} WHERE a.organization_id = :organization"
        " AND a.kind = 'file' AND a.state = 'active' AND a.n > :start",
        organization=organization_id,
        start=start,
    )
    assert row is not None, "an aggregate has one row"
    return int(row[0]), int(row[1])


def due(database: Database, now_micros: int) -> Iterator[list[File]]:
    """Yield the files whose expiry has passed."""
    for page in database.pages(
        # The `+` keeps SQLite from using the ORDER BY index: it would scan every artifact each second.
        f"SELECT {COLUMNS}, f.n {FROM} WHERE f.expires_at <= :now AND a.state = 'active'"
        " AND +f.n > COALESCE(:after, 0) ORDER BY +f.n LIMIT :size",
        size=100,
        now=now_micros,
    ):
        yield [File(*fields_of(row[:-1])) for row in page]


def count_active(tx: Tx, project_id: str) -> int:
    """Return the number of active files of a project."""
    row = tx.row(
        "SELECT COUNT(*) FROM artifacts WHERE project_id = :project AND kind = 'file' AND state = 'active'",
        project=project_id,
    )
    return int(row[0]) if row else 0


def count_names_left(database: Database) -> int:
    """Return the number of deleted files that still have a name."""
    row = database.peek(
        "SELECT COUNT(*) FROM files f JOIN artifacts a ON a.n = f.n"
        " WHERE a.state = 'deleted' AND f.sealed_name IS NOT NULL"
    )
    return int(row[0]) if row else 0


def forget(tx: Tx, numbers: Sequence[int]) -> None:
    """Clear personal data in the rows of deleted files; no-op for numbers of other artifacts."""
    for listed, values in lists.parts(numbers):
        tx.run(
            "UPDATE files SET filename = '', sealed_name = NULL, expires_at = NULL"
            f" WHERE n IN ({listed})",
            **values,
        )


def missing(file_id: str) -> Error:
    """Return the one answer for a file that is unknown, foreign or deleted (I9)."""
    return Error(Kind.NOT_FOUND, f"No such File object: {ids.shown(file_id)}", param="id")

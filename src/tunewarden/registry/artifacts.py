"""Artifacts: models and files, each encrypted under its own key. A row is never removed (I7).

`active ⇄ archived` is reversible; `deleting` and `deleted` are not. Only `deletion/` sets these
two; everything else sees a deletion by reading the state here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunewarden.db import lists
from tunewarden.db.database import Database, Row, Tx
from tunewarden.ids import random_bytes
from tunewarden.registry import quota

COLUMNS = (
    "a.n, a.id, a.internal_id, a.organization_id, a.project_id, a.state, a.epoch, a.key_id,"
    " a.manifest_sha256, a.created_by, a.created_at"
)
# In the manifest of public artifacts, such as the demo's weights, whose plaintext may be on a disk.
PUBLIC = {"is_public": True}
# Salt of the artifact's commitments in the log: created with it, and disclosed only in its receipt.
SALT_BYTES = 32
# Ids from clients are truncated to this length in messages.
ID_LENGTH_MAX = 256


class ArtifactKind(StrEnum):
    """The kind of an artifact; receipts and responses use these words."""

    MODEL = "model"
    FILE = "file"


class State(StrEnum):
    """The state of an artifact. Files are never archived."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DELETING = "deleting"
    DELETED = "deleted"


# States visible to its organization; in any other the artifact looks like one that never existed (I9).
VISIBLE = frozenset({State.ACTIVE, State.ARCHIVED})


@dataclass(frozen=True, slots=True)
class Artifact:
    """Fields of models and files. `internal_id` names its blobs and, in engines, the model."""

    n: int
    id: str
    internal_id: str
    organization_id: str
    project_id: str
    state: State
    epoch: int
    key_id: str
    manifest_sha256: str
    created_by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """One blob of an artifact: `bytes` of plaintext, `sealed_bytes` of ciphertext."""

    name: str
    bytes: int
    sealed_bytes: int


def register(
    tx: Tx, kind: ArtifactKind, artifact: Artifact, *, manifest: str, blobs: list[SealedBlob]
) -> int:
    """Insert an active artifact with its blobs, in order; return its number."""
    tx.run(
        "INSERT INTO artifacts (kind, id, internal_id, organization_id, project_id, state, epoch,"
        " key_id, manifest, manifest_sha256, salt, created_by, created_at) VALUES (:kind, :id,"
        " :internal_id, :organization, :project, 'active', 1, :key, :manifest, :sha, :salt, :by, :at)",
        kind=kind.value,
        id=artifact.id,
        internal_id=artifact.internal_id,
        organization=artifact.organization_id,
        project=artifact.project_id,
        key=artifact.key_id,
        manifest=manifest,
        sha=artifact.manifest_sha256,
        salt=random_bytes(SALT_BYTES),
        by=artifact.created_by,
        at=artifact.created_at,
    )
    row = tx.row("SELECT n FROM artifacts WHERE id = :id", id=artifact.id)
    assert row is not None, "the row was written in this transaction"
    n = int(row[0])
    for position, blob in enumerate(blobs):
        tx.run(
            "INSERT INTO blobs VALUES (:name, :n, :position, :bytes, :sealed_bytes, NULL)",
            name=blob.name,
            n=n,
            position=position,
            bytes=blob.bytes,
            sealed_bytes=blob.sealed_bytes,
        )
    size = sum(blob.sealed_bytes for blob in blobs)
    is_file = kind is ArtifactKind.FILE
    quota.add_stored(tx, artifact.project_id, artifact.organization_id, size, is_file=is_file)
    return n


def find_any(tx: Tx, kind: ArtifactKind, organization_id: str, artifact_id: str) -> Artifact | None:
    """Return an organization's artifact in any state, or None."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM artifacts a WHERE a.id = :id AND a.kind = :kind"
        " AND a.organization_id = :organization",
        id=artifact_id,
        kind=kind.value,
        organization=organization_id,
    )
    return Artifact(*fields_of(row)) if row else None


def by_n(tx: Tx, n: int) -> tuple[ArtifactKind, Artifact]:
    """Return the kind and the artifact with this number, in any state; it must exist."""
    row = tx.row(f"SELECT {COLUMNS}, a.kind FROM artifacts a WHERE a.n = :n", n=n)
    assert row is not None, "an artifact's row is never removed"
    return ArtifactKind(row[-1]), Artifact(*fields_of(row[:-1]))


def find_internal(tx: Tx, kind: ArtifactKind, internal_id: str) -> tuple[Artifact, bytes] | None:
    """Return the artifact of an internal id in any state, and its salt; None if there is none."""
    row = tx.row(
        f"SELECT {COLUMNS}, a.salt FROM artifacts a WHERE a.internal_id = :id AND a.kind = :kind",
        id=internal_id,
        kind=kind.value,
    )
    return (Artifact(*fields_of(row[:-1])), row[-1]) if row else None


def is_active(database: Database, n: int) -> bool:
    """Return whether an artifact may be served now: one read by primary key, no cache."""
    row = database.peek("SELECT state FROM artifacts WHERE n = :n", n=n)
    return row is not None and row[0] == "active"


def is_active_in_engines(database: Database, internal_id: str) -> bool:
    """Return whether engines may hold the model with this internal id."""
    sql = "SELECT 1 FROM artifacts WHERE internal_id = :id AND state = 'active'"
    return database.peek(sql, id=internal_id) is not None


def is_public(database: Database, n: int) -> bool:
    """Return whether an artifact is public."""
    row = database.peek("SELECT manifest FROM artifacts WHERE n = :n", n=n)
    return row is not None and PUBLIC.items() <= json.loads(row[0]).items()


def has_private(database: Database) -> bool:
    """Return whether any non-public data is stored, drafts included."""
    if database.peek("SELECT 1 FROM drafts WHERE kind <> 'import' LIMIT 1"):
        return True
    for page in database.pages(
        "SELECT manifest, n FROM artifacts WHERE state IN ('active', 'archived')"
        " AND n > COALESCE(:after, 0) ORDER BY n LIMIT :size",
        size=100,
    ):
        if any(not PUBLIC.items() <= json.loads(row[0]).items() for row in page):
            return True
    return False


def blobs_of(tx: Tx, n: int) -> list[SealedBlob]:
    """Return the blobs of an artifact that are not erased yet, in content order."""
    return blobs_of_each(tx, [n])[n]


def blobs_of_each(tx: Tx, numbers: Sequence[int]) -> dict[int, list[SealedBlob]]:
    """Return what `blobs_of` does, for each of these artifacts."""
    found: dict[int, list[SealedBlob]] = {n: [] for n in numbers}
    for listed, values in lists.parts(numbers):
        for n, *row in tx.rows(
            f"SELECT artifact_n, name, bytes, sealed_bytes FROM blobs WHERE artifact_n IN ({listed})"
            " AND erased_at IS NULL ORDER BY artifact_n, position",
            **values,
        ):
            found[n].append(SealedBlob(*row))
    return found


def by_key(database: Database, first: str, end: str) -> Iterator[list[Artifact]]:
    """Yield the active and archived artifacts with key ids from `first` up to but excluding `end`, in order."""
    for page in database.pages(
        f"SELECT {COLUMNS}, a.key_id FROM artifacts a WHERE a.key_id >= :first"
        " AND a.key_id < :end AND a.state IN ('active', 'archived')"
        " AND a.key_id > COALESCE(:after, '') ORDER BY a.key_id LIMIT :size",
        size=1000,
        first=first,
        end=end,
    ):
        yield [Artifact(*fields_of(row[:-1])) for row in page]


def keys_of_deleted(database: Database) -> set[str]:
    """Return the key ids of deleted artifacts and of those being deleted."""
    with database.read() as tx:
        rows = tx.rows("SELECT key_id FROM artifacts WHERE state IN ('deleting', 'deleted')")
    return {str(row[0]) for row in rows}


def set_archived(tx: Tx, n: int, *, is_archived: bool) -> None:
    """Archive an artifact, or make it active again; no-op if it is being deleted (I7)."""
    before, after = (
        (State.ACTIVE, State.ARCHIVED) if is_archived else (State.ARCHIVED, State.ACTIVE)
    )
    tx.run(
        "UPDATE artifacts SET state = :after WHERE n = :n AND state = :before",
        after=after.value,
        n=n,
        before=before.value,
    )


def is_archived(database: Database, n: int) -> bool:
    """Return whether an artifact is archived: one read by primary key."""
    return (
        database.peek("SELECT 1 FROM artifacts WHERE n = :n AND state = 'archived'", n=n)
        is not None
    )


def is_visible(database: Database, n: int) -> bool:
    """Return whether an artifact is active or archived now: one read by primary key, no cache."""
    row = database.peek("SELECT state FROM artifacts WHERE n = :n", n=n)
    return row is not None and State(row[0]) in VISIBLE


def begin_deletions(tx: Tx, epochs: Mapping[int, int]) -> None:
    """Set artifacts to `deleting`, each with a new epoch, by its number: they are not served any more (D3)."""
    tx.run_each(
        "UPDATE artifacts SET state = 'deleting', epoch = :epoch WHERE n = :n",
        [{"n": n, "epoch": epoch} for n, epoch in epochs.items()],
    )


def end_deletions(tx: Tx, numbers: Sequence[int]) -> None:
    """Set artifacts to `deleted`: their rows stay as tombstones (D8)."""
    changed = 0
    for listed, values in lists.parts(numbers):
        changed += tx.run(
            f"UPDATE artifacts SET state = 'deleted' WHERE n IN ({listed}) AND state = 'deleting'",
            **values,
        )
    if changed != len(set(numbers)):
        raise RuntimeError("the artifact of an unfinished deletion is not in state deleting")


def note_blobs_erased(tx: Tx, n: int) -> None:
    """Note that all blobs of an artifact are erased (D9)."""
    tx.run("UPDATE blobs SET erased_at = :now WHERE artifact_n = :n", now=tx.now_micros, n=n)


def fields_of(row: Row) -> list[Any]:
    """Convert a row that begins with COLUMNS to the fields of an Artifact or a subclass."""
    return [State(value) if position == 5 else value for position, value in enumerate(row)]

"""Artifacts: models and files, each sealed under a key of its own. A row is never removed (I7).

`active ⇄ archived` is reversible; `deleting` and `deleted` are not. The states are changed to these
two by `deletion/` alone; everything else learns of a deletion by reading the state here.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunewarden.db.database import Database, Row, Tx

COLUMNS = (
    "a.n, a.id, a.internal_id, a.organization_id, a.project_id, a.state, a.epoch, a.key_id,"
    " a.manifest_sha256, a.created_by, a.created_at"
)
# How much of an id that a client sent is shown back to it.
ID_LENGTH_MAX = 256


class ArtifactKind(StrEnum):
    """What an artifact is; receipts and answers call it so."""

    MODEL = "model"
    FILE = "file"


class State(StrEnum):
    """Where an artifact is in its life. Files are not archived."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DELETING = "deleting"
    DELETED = "deleted"


# What its organization can see: everything else looks like an artifact that never was (I9).
VISIBLE = frozenset({State.ACTIVE, State.ARCHIVED})


@dataclass(frozen=True, slots=True)
class Artifact:
    """What models and files share. `internal_id` names its blobs and, in engines, the model."""

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
    """One blob of an artifact: `bytes` in the plain, `sealed_bytes` as stored."""

    name: str
    bytes: int
    sealed_bytes: int


def register(
    tx: Tx, kind: ArtifactKind, artifact: Artifact, *, manifest: str, blobs: list[SealedBlob]
) -> int:
    """Write a new active artifact with its blobs, in their order; return its number."""
    tx.run(
        "INSERT INTO artifacts (kind, id, internal_id, organization_id, project_id, state, epoch,"
        " key_id, manifest, manifest_sha256, created_by, created_at) VALUES (:kind, :id, :internal_id,"
        " :organization, :project, 'active', 1, :key, :manifest, :sha, :by, :at)",
        kind=kind.value,
        id=artifact.id,
        internal_id=artifact.internal_id,
        organization=artifact.organization_id,
        project=artifact.project_id,
        key=artifact.key_id,
        manifest=manifest,
        sha=artifact.manifest_sha256,
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
    return n


def find_any(tx: Tx, kind: ArtifactKind, organization_id: str, artifact_id: str) -> Artifact | None:
    """Return an organization's artifact in whatever state, or None."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM artifacts a WHERE a.id = :id AND a.kind = :kind"  # noqa: S608
        " AND a.organization_id = :organization",
        id=artifact_id,
        kind=kind.value,
        organization=organization_id,
    )
    return Artifact(*fields_of(row)) if row else None


def is_active(database: Database, n: int) -> bool:
    """Tell whether an artifact may be served at this moment: one read by primary key, no cache."""
    row = database.peek("SELECT state FROM artifacts WHERE n = :n", n=n)
    return row is not None and row[0] == "active"


def blobs_of(tx: Tx, n: int) -> list[SealedBlob]:
    """Return the blobs of an artifact that are not erased yet, in the order of its bytes."""
    return [
        SealedBlob(*row)
        for row in tx.rows(
            "SELECT name, bytes, sealed_bytes FROM blobs WHERE artifact_n = :n AND erased_at IS NULL"
            " ORDER BY position",
            n=n,
        )
    ]


def fields_of(row: Row) -> list[Any]:
    """Return a row that begins with COLUMNS as the fields of an Artifact, or of what extends it."""
    return [State(value) if position == 5 else value for position, value in enumerate(row)]

"""Fine-tuned models and their states. A row is never removed: it stays as a tombstone (I7).

`active ⇄ archived` is reversible; `deleting` and `deleted` are not. The states are changed to these
two by `deletion/` alone; everything else learns of a deletion by reading the state here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.ids import token

SUFFIX = re.compile(r"[A-Za-z0-9._-]{0,64}")
TAIL_LENGTH = 8
COLUMNS = (
    "n, id, internal_id, organization_id, project_id, base, suffix, state, epoch, key_id,"
    " manifest_sha256, created_by, created_at"
)
ID_LENGTH_MAX = 256


class State(StrEnum):
    """Where a model is in its life."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DELETING = "deleting"
    DELETED = "deleted"


# What its organization can see: everything else looks like a model that never was (I9).
VISIBLE = frozenset({State.ACTIVE, State.ARCHIVED})


@dataclass(frozen=True, slots=True)
class Model:
    """A fine-tuned model. `internal_id` is what engines call it, used for no other model, ever."""

    n: int
    id: str
    internal_id: str
    organization_id: str
    project_id: str
    base: str
    suffix: str
    state: State
    epoch: int
    key_id: str
    manifest_sha256: str
    created_by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A blob of a model: `bytes` in the plain, `sealed_bytes` as stored."""

    name: str
    bytes: int
    sealed_bytes: int


def mint_id(*, base: str, organization: str, suffix: str) -> str:
    """Return a new public id. Raises Error(INVALID) for a suffix that could not stand in it."""
    if not SUFFIX.fullmatch(suffix):
        raise Error(
            Kind.INVALID,
            "A suffix may have up to 64 letters, digits, dots, dashes and underscores.",
            param="suffix",
        )
    return f"ft:{base}:{organization}:{suffix}:{token(TAIL_LENGTH)}"


def register(tx: Tx, *, model: Model, manifest: str, blobs: list[SealedBlob]) -> Model:
    """Write a new active model with its blobs; return it with its number."""
    tx.run(
        "INSERT INTO models (id, internal_id, organization_id, project_id, base, suffix, state, epoch,"
        " key_id, manifest, manifest_sha256, created_by, created_at) VALUES (:id, :internal_id,"
        " :organization, :project, :base, :suffix, 'active', 1, :key, :manifest, :sha, :by, :at)",
        id=model.id,
        internal_id=model.internal_id,
        organization=model.organization_id,
        project=model.project_id,
        base=model.base,
        suffix=model.suffix,
        key=model.key_id,
        manifest=manifest,
        sha=model.manifest_sha256,
        by=model.created_by,
        at=model.created_at,
    )
    written = find_any(tx, model.organization_id, model.id)
    assert written is not None, "the row was written in this transaction"
    for blob in blobs:
        tx.run(
            "INSERT INTO blobs VALUES (:name, :n, :bytes, :sealed_bytes, NULL)",
            name=blob.name,
            n=written.n,
            bytes=blob.bytes,
            sealed_bytes=blob.sealed_bytes,
        )
    return written


def find_any(tx: Tx, organization_id: str, model_id: str) -> Model | None:
    """Return an organization's model in whatever state, or None."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM models WHERE id = :id AND organization_id = :organization",  # noqa: S608
        id=model_id,
        organization=organization_id,
    )
    return from_row(row) if row else None


def find(database: Database, organization_id: str, model_id: str) -> Model | None:
    """Return an organization's model if it is visible, or None: one query for foreign and unknown (I9)."""
    row = database.peek(
        f"SELECT {COLUMNS} FROM models WHERE id = :id AND organization_id = :organization",  # noqa: S608
        id=model_id,
        organization=organization_id,
    )
    model = from_row(row) if row else None
    return model if model is not None and model.state in VISIBLE else None


def is_active(database: Database, n: int) -> bool:
    """Tell whether a model may be served at this moment: one read by primary key, no cache."""
    row = database.peek("SELECT state FROM models WHERE n = :n", n=n)
    return row is not None and row[0] == "active"


def pages(database: Database, organization_id: str, *, size: int = 1000) -> Iterator[list[Model]]:
    """Yield an organization's visible models, oldest first, in flat memory."""
    for page in database.pages(
        f"SELECT {COLUMNS}, n FROM models WHERE organization_id = :organization"  # noqa: S608
        " AND state IN ('active', 'archived') AND n > COALESCE(:after, 0) ORDER BY n LIMIT :size",
        size=size,
        organization=organization_id,
    ):
        yield [from_row(row[:-1]) for row in page]


def blobs_of(tx: Tx, n: int) -> list[SealedBlob]:
    """Return the blobs of a model that are not erased yet."""
    return [
        SealedBlob(*row)
        for row in tx.rows(
            "SELECT name, bytes, sealed_bytes FROM blobs WHERE model_n = :n AND erased_at IS NULL"
            " ORDER BY name",
            n=n,
        )
    ]


def missing(model_id: str) -> Error:
    """Return the one answer for a model that is unknown, foreign or deleted (I9)."""
    shown = model_id if len(model_id) <= ID_LENGTH_MAX else f"{model_id[:ID_LENGTH_MAX]}…"
    return Error(
        Kind.NOT_FOUND,
        f"The model '{shown}' does not exist (model not found)",
        param="model",
        code="model_not_found",
    )


def from_row(row: Row) -> Model:
    """Return the model of a row of COLUMNS."""
    n, public, internal, organization, project, base, suffix, state, *rest = row
    return Model(n, public, internal, organization, project, base, suffix, State(state), *rest)

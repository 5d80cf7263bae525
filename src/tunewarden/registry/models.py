"""Fine-tuned models: imported, trained by a job, or a job's checkpoint (a model with a step)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tunewarden import ids
from tunewarden.db import cursors, lists
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.ids import token
from tunewarden.registry import artifacts
from tunewarden.registry.artifacts import (
    VISIBLE,
    Artifact,
    ArtifactKind,
    SealedBlob,
    fields_of,
)

SUFFIX = re.compile(r"[A-Za-z0-9._-]{0,64}")
TAIL_LENGTH = 8
COLUMNS = f"{artifacts.COLUMNS}, m.base, m.suffix, m.job_n, m.step, m.is_protected"
FROM = "FROM artifacts a JOIN models m ON m.n = a.n"
# A checkpoint is visible to its own project and to those with a permission.
SEEN_BY = (
    "(m.step IS NULL OR a.project_id = :project OR EXISTS (SELECT 1 FROM checkpoint_permissions p"
    " WHERE p.model_n = m.n AND p.project_id = :project))"
)
# Of an artifact `a`: whether it is a model that the caller's project may see.
IS_SEEN = f"EXISTS (SELECT 1 FROM models m WHERE m.n = a.n AND {SEEN_BY})"


@dataclass(frozen=True, slots=True)
class Model(Artifact):
    """A fine-tuned model. Its name in engines is its `internal_id`, which is never reused."""

    base: str
    suffix: str
    job_n: int | None = None
    step: int | None = None
    is_protected: bool = False


def from_row(row: Row) -> Model:
    """Return the model of a row of COLUMNS."""
    fields = fields_of(row)
    fields[-1] = bool(fields[-1])
    return Model(*fields)


def mint_id(*, base: str, organization: str, suffix: str, step: int | None = None) -> str:
    """Return a new public id. Raises Error(INVALID) for an invalid suffix."""
    check_suffix(suffix)
    checkpoint = "" if step is None else f":ckpt-step-{step}"
    return f"ft:{base}:{organization}:{suffix}:{token(TAIL_LENGTH)}{checkpoint}"


def check_suffix(suffix: str) -> None:
    """Check a suffix. Raises Error(INVALID)."""
    if not SUFFIX.fullmatch(suffix):
        raise Error(
            Kind.INVALID,
            "Invalid suffix: use up to 64 letters, digits, dots, dashes and underscores.",
            param="suffix",
        )


def register(tx: Tx, *, model: Model, manifest: str, blobs: list[SealedBlob]) -> Model:
    """Insert an active model with its blobs; return it with its number."""
    n = artifacts.register(tx, ArtifactKind.MODEL, model, manifest=manifest, blobs=blobs)
    tx.run(
        "INSERT INTO models (n, base, suffix, job_n, step, listed_in)"
        " VALUES (:n, :base, :suffix, :job, :step, :listed_in)",
        n=n,
        listed_in=model.organization_id,
        base=model.base,
        suffix=model.suffix,
        job=model.job_n,
        step=model.step,
    )
    return replace(model, n=n)


def find(database: Database, caller: Caller, model_id: str) -> Model | None:
    """Return a model that the caller can see, or None: one query for foreign and unknown (I9)."""
    row = database.peek(
        f"SELECT {COLUMNS} {FROM} WHERE a.id = :id AND a.organization_id = :organization"
        f" AND {SEEN_BY}",
        id=model_id,
        organization=caller.organization_id,
        project=caller.project_id,
    )
    model = from_row(row) if row else None
    return model if model is not None and model.state in VISIBLE else None


def position(database: Database, caller: Caller, after: str | None) -> int:
    """Return where the page after a cursor begins; its model may have been deleted since. Raises Error(INVALID)."""
    return cursors.position(
        database.peek,
        f"SELECT a.n {FROM} WHERE a.id = :after AND a.organization_id = :organization AND {SEEN_BY}",
        after=after,
        first=cursors.BEFORE_ALL,
        organization=caller.organization_id,
        project=caller.project_id,
    )


def pages(
    database: Database, caller: Caller, *, start: int = cursors.BEFORE_ALL, size: int = 1000
) -> Iterator[list[Model]]:
    """Yield the models that the caller can see in pages, oldest first, in constant memory.

    `start`: see `position`.
    """
    for page in database.pages(
        f"SELECT {COLUMNS}, a.n {FROM} WHERE a.organization_id = :organization AND a.kind = 'model'"
        f" AND a.state IN ('active', 'archived') AND a.n > COALESCE(:after, CAST(:start AS BIGINT)) AND {SEEN_BY}"
        " ORDER BY a.n LIMIT :size",
        size=size,
        organization=caller.organization_id,
        project=caller.project_id,
        start=start,
    ):
        yield [from_row(row[:-1]) for row in page]


def checkpoints_of(tx: Tx, n: int) -> tuple[Model, ...]:
    """Return the visible checkpoints of the job that made model `n`, unless `n` is one of them."""
    rows = tx.rows(
        f"SELECT {COLUMNS} {FROM} WHERE m.step IS NOT NULL AND m.job_n ="
        " (SELECT job_n FROM models WHERE n = :n AND step IS NULL)"
        " AND a.state IN ('active', 'archived') ORDER BY m.step",
        n=n,
    )
    return tuple(from_row(row) for row in rows)


def alone_among(tx: Tx, organization_id: str, ids: Sequence[str]) -> list[Model]:
    """Return those of an organization's visible models that are no checkpoints, and whose jobs never made one."""
    found: list[Model] = []
    for listed, values in lists.parts(ids):
        rows = tx.rows(
            f"SELECT {COLUMNS} {FROM} WHERE a.id IN ({listed}) AND a.kind = 'model'"
            " AND a.organization_id = :organization AND a.state IN ('active', 'archived') AND m.step IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM models c WHERE c.job_n = m.job_n AND c.step IS NOT NULL)",
            organization=organization_id,
            **values,
        )
        found += map(from_row, rows)
    return found


def made_by(tx: Tx, job_n: int, step: int | None) -> int | None:
    """Return the number of the model that a job made at a step, or at its end, in any state."""
    row = tx.row(
        "SELECT n FROM models WHERE job_n = :job AND COALESCE(step, 0) = :step",
        job=job_n,
        step=step or 0,
    )
    return int(row[0]) if row else None


def all_made_by(tx: Tx, job_n: int) -> list[int]:
    """Return the numbers of a job's model and checkpoints, in any state."""
    return [row[0] for row in tx.rows("SELECT n FROM models WHERE job_n = :job", job=job_n)]


def step_of(tx: Tx, n: int) -> int | None:
    """Return the step of a checkpoint; None if `n` is another model, or none."""
    row = tx.row("SELECT step FROM models WHERE n = :n", n=n)
    return row[0] if row else None


def is_seen_by(tx: Tx, caller: Caller, n: int) -> bool:
    """Return whether the caller's project may see a model of its organization."""
    seen = tx.row(f"SELECT 1 {FROM} WHERE a.n = :n AND {SEEN_BY}", n=n, project=caller.project_id)
    return seen is not None


def newest(database: Database) -> str | None:
    """Return the id of the newest model that can be served, or None if none of the last 100 can."""
    # Bounded, because the rest may be a million tombstones.
    row = database.peek(
        "SELECT a.id FROM (SELECT n FROM models ORDER BY n DESC LIMIT 100) m"
        " JOIN artifacts a ON a.n = m.n WHERE a.state = 'active' ORDER BY a.n DESC LIMIT 1"
    )
    return str(row[0]) if row else None


def were_made_on(database: Database, base: str) -> bool:
    """Return whether a base has, or ever had, a model."""
    with database.read() as tx:
        return tx.row("SELECT 1 FROM models WHERE base = :base LIMIT 1", base=base) is not None


def by_n(database: Database, n: int) -> Model:
    """Return the model with this number, in any state; it must exist."""
    row = database.peek(f"SELECT {COLUMNS} {FROM} WHERE a.n = :n", n=n)
    assert row is not None, "a model's row is never removed"
    return from_row(row)


def missing(model_id: str) -> Error:
    """Return the one answer for a model that is unknown, foreign or deleted (I9)."""
    return Error(
        Kind.NOT_FOUND,
        f"The model '{ids.shown(model_id)}' does not exist (model not found)",
        param="model",
        code="model_not_found",
    )


def note_load(database: Database, n: int, incarnation: str, *, is_loaded: bool) -> str:
    """Note which engine process has a model, or may have it once a load begins; return the noted one (D5).

    Before a load the earlier process stays noted, until the later one has the model: its end must not be
    hidden. Written once per process, not per load. A power cut that loses this write ends the engine too.
    """
    noted = loaded_by(database, n)
    if noted == incarnation or (noted is not None and not is_loaded):
        return noted
    with database.write(survives=False, below_floor=True) as tx:
        tx.run("UPDATE models SET loaded_by = :by WHERE n = :n", by=incarnation, n=n)
    return incarnation


def loaded_by(database: Database, n: int) -> str | None:
    """Return the incarnation of the last engine process that had, or may have had, a model; None if none did."""
    row = database.peek("SELECT loaded_by FROM models WHERE n = :n", n=n)
    return row[0] if row else None


def loaded_by_each(tx: Tx, numbers: Sequence[int]) -> dict[int, str | None]:
    """Return what `loaded_by` does, for several models."""
    found: dict[int, str | None] = {}
    for listed, values in lists.parts(numbers):
        found |= dict(tx.rows(f"SELECT n, loaded_by FROM models WHERE n IN ({listed})", **values))
    return found


def set_protected(tx: Tx, n: int, *, is_protected: bool) -> bool:
    """Protect a model from deletion without force, or not; return whether that changed it."""
    sql = "UPDATE models SET is_protected = :it WHERE n = :n AND is_protected <> :it"
    return tx.run(sql, it=int(is_protected), n=n) > 0


def protected_among(tx: Tx, numbers: Sequence[int]) -> set[int]:
    """Return which of these artifacts are protected models."""
    found: set[int] = set()
    for listed, values in lists.parts(numbers):
        sql = f"SELECT n FROM models WHERE n IN ({listed}) AND is_protected = 1"
        found.update(int(row[0]) for row in tx.rows(sql, **values))
    return found


def is_one(tx: Tx, n: int) -> bool:
    """Return whether an artifact is a model."""
    return tx.row("SELECT 1 FROM models WHERE n = :n", n=n) is not None


def set_metadata(tx: Tx, n: int, sealed: bytes | None) -> None:
    """Set the sealed metadata of a model."""
    tx.run("UPDATE models SET sealed_metadata = :sealed WHERE n = :n", sealed=sealed, n=n)


def sealed_metadata(database: Database, n: int) -> bytes | None:
    """Return the sealed metadata of a model, or None."""
    row = database.peek("SELECT sealed_metadata FROM models WHERE n = :n", n=n)
    return bytes(row[0]) if row and row[0] is not None else None


def forget(tx: Tx, numbers: Sequence[int]) -> None:
    """Clear clients' words in the rows of deleted models, and list them no more; no-op for other artifacts' numbers.

    The suffix stays in the id, which is a tombstone, and nowhere else of the model: no index of names has it.
    """
    for listed, values in lists.parts(numbers):
        tx.run(
            "UPDATE models SET sealed_metadata = NULL, listed_in = NULL, suffix = ''"
            f" WHERE n IN ({listed})",
            **values,
        )

"""Fine-tuned models: imported, made by a job, or a job's checkpoint (a model with a step)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.ids import token
from tunewarden.registry import artifacts
from tunewarden.registry.artifacts import (
    ID_LENGTH_MAX,
    VISIBLE,
    Artifact,
    ArtifactKind,
    SealedBlob,
    fields_of,
)

SUFFIX = re.compile(r"[A-Za-z0-9._-]{0,64}")
TAIL_LENGTH = 8
COLUMNS = f"{artifacts.COLUMNS}, m.base, m.suffix, m.job_n, m.step"
FROM = "FROM artifacts a JOIN models m ON m.n = a.n"
# A checkpoint can be seen by its own project and by those that it is shared with.
SEEN_BY = (
    "(m.step IS NULL OR a.project_id = :project OR EXISTS (SELECT 1 FROM checkpoint_permissions p"
    " WHERE p.model_n = m.n AND p.project_id = :project))"
)


@dataclass(frozen=True, slots=True)
class Model(Artifact):
    """A fine-tuned model. Engines call it by its `internal_id`, used for no other model, ever."""

    base: str
    suffix: str
    job_n: int | None = None
    step: int | None = None


def mint_id(*, base: str, organization: str, suffix: str, step: int | None = None) -> str:
    """Return a new public id. Raises Error(INVALID) for a suffix that could not stand in it."""
    check_suffix(suffix)
    checkpoint = "" if step is None else f":ckpt-step-{step}"
    return f"ft:{base}:{organization}:{suffix}:{token(TAIL_LENGTH)}{checkpoint}"


def check_suffix(suffix: str) -> None:
    """Return if `suffix` may stand in a model's id. Raises Error(INVALID)."""
    if not SUFFIX.fullmatch(suffix):
        raise Error(
            Kind.INVALID,
            "A suffix may have up to 64 letters, digits, dots, dashes and underscores.",
            param="suffix",
        )


def register(tx: Tx, *, model: Model, manifest: str, blobs: list[SealedBlob]) -> Model:
    """Write a new active model with its blobs; return it with its number."""
    n = artifacts.register(tx, ArtifactKind.MODEL, model, manifest=manifest, blobs=blobs)
    tx.run(
        "INSERT INTO models VALUES (:n, :base, :suffix, :job, :step)",
        n=n,
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
    model = Model(*fields_of(row)) if row else None
    return model if model is not None and model.state in VISIBLE else None


def pages(
    database: Database, caller: Caller, *, after: str | None = None, size: int = 1000
) -> Iterator[list[Model]]:
    """Yield the models that the caller can see, oldest first, in flat memory.

    Those made after the model `after`, which may be deleted meanwhile; none if it was never seen.
    """
    start = 0
    if after is not None:
        row = database.peek(
            f"SELECT a.n {FROM} WHERE a.id = :id AND a.organization_id = :organization AND {SEEN_BY}",
            id=after,
            organization=caller.organization_id,
            project=caller.project_id,
        )
        if row is None:
            return
        start = int(row[0])
    for page in database.pages(
        f"SELECT {COLUMNS}, a.n {FROM} WHERE a.organization_id = :organization AND a.kind = 'model'"
        f" AND a.state IN ('active', 'archived') AND a.n > COALESCE(:after, :start) AND {SEEN_BY}"
        " ORDER BY a.n LIMIT :size",
        size=size,
        organization=caller.organization_id,
        project=caller.project_id,
        start=start,
    ):
        yield [Model(*fields_of(row[:-1])) for row in page]


def checkpoints_of(tx: Tx, n: int) -> tuple[Model, ...]:
    """Return the visible checkpoints of the job that made model `n`, unless `n` is one of them."""
    rows = tx.rows(
        f"SELECT {COLUMNS} {FROM} WHERE m.step IS NOT NULL AND m.job_n ="  # noqa: S608
        " (SELECT job_n FROM models WHERE n = :n AND step IS NULL)"
        " AND a.state IN ('active', 'archived') ORDER BY m.step",
        n=n,
    )
    return tuple(Model(*fields_of(row)) for row in rows)


def is_seen_by(tx: Tx, caller: Caller, n: int) -> bool:
    """Tell whether the caller's project may see a model of its organization."""
    seen = tx.row(f"SELECT 1 {FROM} WHERE a.n = :n AND {SEEN_BY}", n=n, project=caller.project_id)
    return seen is not None


def newest(database: Database) -> str | None:
    """Return the id of the newest model that can be served, or None if the newest ones cannot."""
    # A few are looked at: behind them may stand nothing but a million tombstones.
    row = database.peek(
        "SELECT a.id FROM (SELECT n FROM models ORDER BY n DESC LIMIT 100) m"
        " JOIN artifacts a ON a.n = m.n WHERE a.state = 'active' ORDER BY a.n DESC LIMIT 1"
    )
    return str(row[0]) if row else None


def by_n(database: Database, n: int) -> Model:
    """Return the model with this number, in whatever state; it must exist."""
    row = database.peek(f"SELECT {COLUMNS} {FROM} WHERE a.n = :n", n=n)
    assert row is not None, "a model's row is never removed"
    return Model(*fields_of(row))


def missing(model_id: str) -> Error:
    """Return the one answer for a model that is unknown, foreign or deleted (I9)."""
    shown = model_id if len(model_id) <= ID_LENGTH_MAX else f"{model_id[:ID_LENGTH_MAX]}…"
    return Error(
        Kind.NOT_FOUND,
        f"The model '{shown}' does not exist (model not found)",
        param="model",
        code="model_not_found",
    )

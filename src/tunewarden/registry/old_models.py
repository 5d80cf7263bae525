"""SQL on what retention and bulk deletions choose from: models with their checkpoints, and when they were used last."""

from collections.abc import Iterator

from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.registry.artifacts import State
from tunewarden.registry.criteria import Candidate, Criteria
from tunewarden.registry.models import SEEN_BY

PAGE_SIZE = 500
# Use of a checkpoint is use of its model, which it goes with.
_COLUMNS = (
    "a.n, a.id, a.project_id, m.base, m.suffix, a.created_at, a.state,"
    " (SELECT MAX(s.last_used_at) FROM usage_series s"
    "  WHERE s.organization_id = a.organization_id AND s.model_id = a.id),"
    " (SELECT MAX(s.last_used_at) FROM models c JOIN artifacts ca ON ca.n = c.n"
    "  JOIN usage_series s ON s.organization_id = ca.organization_id AND s.model_id = ca.id"
    "  WHERE c.job_n = m.job_n AND m.step IS NULL)"
)
_FROM = "FROM artifacts a JOIN models m ON m.n = a.n"
_STANDS_ALONE = (
    "(m.step IS NULL OR NOT EXISTS (SELECT 1 FROM models w JOIN artifacts x ON x.n = w.n"
    " WHERE w.job_n = m.job_n AND COALESCE(w.step, 0) = 0 AND x.state IN ('active', 'archived')))"
)


def candidates(
    database: Database, organization_id: str, criteria: Criteria, *, seen_by: str | None = None
) -> Iterator[Candidate]:
    """Yield an organization's models of the criteria's base and project, newest first, in constant memory.

    `seen_by`: only those that a caller of this project may see.
    """
    for page in database.pages(
        f"SELECT {_COLUMNS}, a.n {_FROM} WHERE a.organization_id = :organization AND a.kind = 'model'"
        " AND a.state IN ('active', 'archived') AND a.n < COALESCE(:after, CAST(:start AS BIGINT))"
        " AND m.base = COALESCE(:base, m.base) AND a.project_id = COALESCE(:of_project, a.project_id)"
        f" AND (CAST(:project AS TEXT) IS NULL OR {SEEN_BY}) AND {_STANDS_ALONE} ORDER BY a.n DESC LIMIT :size",
        size=PAGE_SIZE,
        organization=organization_id,
        start=cursors.AFTER_ALL,
        base=criteria.base,
        of_project=criteria.project_id,
        project=seen_by,
    ):
        yield from (_candidate(row) for row in page)


def candidate(tx: Tx, n: int) -> Candidate | None:
    """Return a model as it is now; None if it is being deleted, or goes with another now."""
    row = tx.row(
        f"SELECT {_COLUMNS} {_FROM} WHERE a.n = :n AND a.state IN ('active', 'archived') AND {_STANDS_ALONE}",
        n=n,
    )
    return _candidate(row) if row else None


def is_latest(tx: Tx, one: Candidate, keep_latest: int | None) -> bool:
    """Return whether fewer than `keep_latest` active models with its name are newer; False without a number."""
    if keep_latest is None:
        return False
    beyond = tx.row(
        f"SELECT 1 FROM models m JOIN artifacts a ON a.n = m.n WHERE m.base = :base AND m.suffix = :suffix"
        f" AND m.n > :n AND a.project_id = :project AND a.state = 'active' AND {_STANDS_ALONE}"
        " ORDER BY m.n LIMIT 1 OFFSET :others",
        base=one.base,
        suffix=one.suffix,
        n=one.n,
        project=one.project_id,
        others=keep_latest - 1,
    )
    return beyond is None


def _candidate(row: Row) -> Candidate:
    own, of_its_checkpoints = row[7], row[8]
    last = max((used for used in (own, of_its_checkpoints) if used is not None), default=None)
    return Candidate(
        n=row[0],
        id=row[1],
        project_id=row[2],
        base=row[3],
        suffix=row[4],
        created_at=row[5],
        is_archived=row[6] == State.ARCHIVED,
        last_used_at=last,
    )

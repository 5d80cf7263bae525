"""SQL on exports: when a model's plain weights were exported, and by which key. A row is never removed.

`of` is what plans, receipts and reports read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden.db import lists
from tunewarden.db.database import Tx

# Of one model: a receipt lists them all, and a list in a receipt has at most so many items.
EXPORTS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Export:
    """An export: recorded at `exported_at` (microseconds), before its first byte was sent.

    `exported_by` is the id of an API key. `log_index` is None until its leaf was noted: then no byte was sent yet.
    """

    id: str
    exported_by: str
    exported_at: int
    log_index: int | None = None


def of(tx: Tx, artifact_n: int) -> list[Export]:
    """Return all exports of a model, oldest first; also of one that is deleted."""
    rows = tx.rows(
        "SELECT id, exported_by, exported_at, log_index FROM exports WHERE artifact_n = :n"
        " ORDER BY exported_at, id LIMIT :limit",
        n=artifact_n,
        limit=EXPORTS_MAX,
    )
    return [Export(*row) for row in rows]


def exported_among(tx: Tx, numbers: Sequence[int]) -> set[int]:
    """Return which of these models have an export."""
    found: set[int] = set()
    for listed, values in lists.parts(numbers):
        sql = f"SELECT DISTINCT artifact_n FROM exports WHERE artifact_n IN ({listed})"
        found.update(int(row[0]) for row in tx.rows(sql, **values))
    return found


def exists(tx: Tx, export_id: str) -> bool:
    """Return whether an export is recorded."""
    return tx.row("SELECT 1 FROM exports WHERE id = :id", id=export_id) is not None


def insert(tx: Tx, artifact_n: int, export: Export) -> None:
    """Record an export of a model."""
    tx.run(
        "INSERT INTO exports (id, artifact_n, exported_by, exported_at, log_index)"
        " VALUES (:id, :n, :by, :at, :index)",
        id=export.id,
        n=artifact_n,
        by=export.exported_by,
        at=export.exported_at,
        index=export.log_index,
    )


def note_leaf(tx: Tx, export_id: str, log_index: int) -> None:
    """Store where an export's leaf is in the log."""
    tx.run("UPDATE exports SET log_index = :index WHERE id = :id", index=log_index, id=export_id)

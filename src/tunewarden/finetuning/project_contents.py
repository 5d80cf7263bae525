"""What a project has that must be gone before it is archived."""

from tunewarden.db.database import Tx
from tunewarden.finetuning import jobs
from tunewarden.registry import file_rows, upload_rows


def counts(tx: Tx, project_id: str) -> dict[str, int]:
    """Return how many files, unfinished uploads and unfinished jobs a project has, by what they are called."""
    return {
        "active files": file_rows.count_active(tx, project_id),
        "unfinished uploads": upload_rows.count_pending(tx, project_id),
        "unfinished fine-tuning jobs": jobs.count_unfinished(tx, project_id),
    }

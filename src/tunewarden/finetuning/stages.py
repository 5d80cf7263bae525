"""The states of jobs as people know them: OpenAI's words, and two for a job that is paused or about to be."""

from tunewarden.db.database import Database
from tunewarden.finetuning import states
from tunewarden.finetuning.states import PAUSED, State, Status
from tunewarden.identity.policy import Action, Caller, authorize

# What the rows of each are, as conditions on `jobs j`. Each has an index that begins with the project.
STAGES = {
    "validating_files": "j.status = 'validating_files' AND j.is_paused = 0",
    "queued": "j.status = 'queued' AND j.is_paused = 0",
    "running": "j.status = 'running' AND COALESCE(j.wish, '') <> 'pause'",
    "pausing": "j.status = 'running' AND j.wish = 'pause'",
    "paused": "j.finished_at IS NULL AND j.is_paused = 1",
    "succeeded": "j.status = 'succeeded'",
    "failed": "j.status = 'failed'",
    "cancelled": "j.status = 'cancelled'",
}


def of(state: State) -> str:
    """Return the stage of a job in this state."""
    if state in PAUSED:
        return "pausing" if state is State.PAUSING else "paused"
    return state.status.value


def count_unended(database: Database, caller: Caller) -> dict[str, int]:
    """Return how many jobs of the caller's project are in each stage that does not end them. Raises Error(FORBIDDEN)."""
    authorize(caller, Action.READ_JOBS)
    counts = {name: 0 for name in STAGES if name not in states.ENDED}
    with database.read() as tx:
        rows = tx.rows(
            "SELECT status, is_paused, wish, COUNT(*) FROM jobs WHERE project_id = :project AND finished_at IS NULL"
            " GROUP BY status, is_paused, wish",
            project=caller.project_id,
        )
    for status, is_paused, wish, count in rows:
        if Status(status) not in states.ENDED:
            counts[of(states.stored(status, is_paused, wish, None))] += count
    return counts

"""The lineage of one model or file, up and down, as far as a caller may see it."""

from dataclasses import dataclass, replace

from tunewarden.db.database import Database, Tx
from tunewarden.deletion import lineage
from tunewarden.deletion.lineage import Node, Reach, Walk
from tunewarden.finetuning import job_lineage
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts, file_rows, models
from tunewarden.registry.artifacts import VISIBLE, Artifact

# In each direction.
NODES_MAX = 1_000
JOB = "fine_tuning.job"
CHECKPOINT = "model.checkpoint"


@dataclass(frozen=True, slots=True)
class Relative:
    """A model, a file or a job of a lineage. `is_gone`: deleted, so that only its id and state are said.

    `via`: the id of the next one on the way to what was asked about, None if that is hidden.
    """

    id: str
    kind: str
    state: str
    via: str | None
    is_declared: bool
    is_gone: bool


@dataclass(frozen=True, slots=True)
class Direction:
    """The relatives on one side, nearest first; `hidden` counts those of other projects. `is_whole`: nothing was left out."""

    relatives: tuple[Relative, ...]
    hidden: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class ArtifactLineage:
    """What a model or a file learned from or was made from (`up`), and what learned from it or was made from it (`down`)."""

    artifact: Artifact
    up: Direction
    down: Direction


def of_model(database: Database, caller: Caller, model_id: str) -> ArtifactLineage:
    """Return the lineage of a model that the caller can see. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
    authorize(caller, Action.READ_MODELS)
    model = models.find(database, caller, model_id)
    if model is None:
        raise models.missing(model_id)
    return _of(database, caller, model)


def of_file(database: Database, caller: Caller, file_id: str) -> ArtifactLineage:
    """Return the lineage of a file that the caller can see. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
    authorize(caller, Action.READ_FILES)
    file = file_rows.find(database, caller, file_id)
    if file is None:
        raise file_rows.missing(file_id)
    return _of(database, caller, file)


def _of(database: Database, caller: Caller, artifact: Artifact) -> ArtifactLineage:
    start = Node(artifact.n)
    with database.read() as tx:
        up = lineage.walk(tx, start, lineage.above, most=NODES_MAX)
        down = lineage.walk(tx, start, lineage.below, most=NODES_MAX)
        return ArtifactLineage(
            artifact, _direction(tx, caller, artifact, up), _direction(tx, caller, artifact, down)
        )


def _direction(tx: Tx, caller: Caller, start: Artifact, reached: Walk) -> Direction:
    named = {Node(start.n): start.id}
    shown: list[Relative] = []
    for node, reach in reached.found.items():
        one = _job(tx, caller, node) if node.is_job else _artifact(tx, caller, node)
        if one is not None:
            named[node] = one.id
            shown.append(_with_way(one, reach, named))
    return Direction(tuple(shown), len(reached.found) - len(shown), reached.is_whole)


def _job(tx: Tx, caller: Caller, node: Node) -> Relative | None:
    job = job_lineage.by_n(tx, node.n)
    if job.project_id != caller.project_id:
        return None
    return Relative(job.id, JOB, job.state.status.value, None, is_declared=False, is_gone=False)


def _artifact(tx: Tx, caller: Caller, node: Node) -> Relative | None:
    kind, artifact = artifacts.by_n(tx, node.n)
    if not lineage.is_seen(tx, caller, kind, artifact):
        return None
    is_checkpoint = models.step_of(tx, node.n) is not None
    return Relative(
        artifact.id,
        CHECKPOINT if is_checkpoint else kind.value,
        artifact.state.value,
        None,
        is_declared=False,
        is_gone=artifact.state not in VISIBLE,
    )


def _with_way(one: Relative, reach: Reach, named: dict[Node, str]) -> Relative:
    return replace(one, via=named.get(reach.by), is_declared=reach.is_declared)

"""What learned from an artifact, and what it learned from: file -> job -> checkpoints and model -> job -> …, derived files.

A validation file teaches a model nothing: only the result file has metrics of it. What an Owner declared of an import
(`metadata.trained_on`) is followed too, and marked: it is no fact that was seen here.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tunewarden.db.database import Tx
from tunewarden.deletion.together import MEMBERS_MAX
from tunewarden.finetuning import job_lineage
from tunewarden.identity.policy import Caller
from tunewarden.registry import artifacts, lineage, models
from tunewarden.registry.artifacts import VISIBLE, Artifact, ArtifactKind, State

# Tombstones are passed too: what learned from them is followed. More is not looked at in one transaction.
NODES_MAX = 4 * MEMBERS_MAX
# A receipt's list has no more items; each deletion looks at that (D7).
RECEIPT_NODES_MAX = 1_000


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """An artifact or a job, by its number."""

    n: int
    is_job: bool = False


# A node, and whether the way to it is only declared.
Edge = tuple[Node, bool]
Edges = Callable[[Tx, Node], Iterator[Edge]]


@dataclass(frozen=True, slots=True)
class Reach:
    """How a node was reached: from which one first, and whether only by what was declared."""

    by: Node
    is_declared: bool


@dataclass(frozen=True, slots=True)
class Walk:
    """What was reached, in order, without the start. `is_whole`: nothing was left out."""

    found: dict[Node, Reach]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Learner:
    """A living artifact that learned from another, or was made from it."""

    artifact: Artifact
    kind: ArtifactKind
    is_checkpoint: bool
    is_declared: bool


@dataclass(frozen=True, slots=True)
class Learned:
    """What learned from an artifact, as far as the caller may see it; `hidden` counts what lives beside that.

    `under_way`: numbers of artifacts that are being deleted already.
    """

    members: tuple[Learner, ...]
    hidden: int
    under_way: tuple[int, ...]
    is_whole: bool


def below(tx: Tx, node: Node) -> Iterator[Edge]:
    """Yield what learned from a node directly, or was made from it."""
    if node.is_job:
        made = models.all_made_by(tx, node.n)
        result_n = job_lineage.by_n(tx, node.n).result_n
        yield from ((Node(n), False) for n in (*made, *([] if result_n is None else [result_n])))
        return
    yield from ((Node(job.n, is_job=True), False) for job in job_lineage.learned_from(tx, node.n))
    made = [*lineage.made_from(tx, node.n), *job_lineage.results_measured_on(tx, node.n)]
    yield from ((Node(n), False) for n in made)
    yield from ((Node(n), True) for n in lineage.declared_to_learn_from(tx, node.n))


def above(tx: Tx, node: Node) -> Iterator[Edge]:
    """Yield what a node learned from directly, or was made from."""
    if node.is_job:
        yield from ((Node(n), False) for n in job_lineage.by_n(tx, node.n).origins)
        return
    maker = job_lineage.maker_of(tx, node.n)
    if maker is not None:
        yield Node(maker, is_job=True), False
    makers = [*lineage.makers_of(tx, node.n), *job_lineage.measured_by(tx, node.n)]
    yield from ((Node(n), False) for n in makers)
    yield from ((Node(n), True) for n in lineage.declared_origins_of(tx, node.n))


def walk(tx: Tx, start: Node, edges: Edges, *, most: int = NODES_MAX) -> Walk:
    """Return everything that can be reached from `start`, nothing twice, so that circles end; at most `most` nodes."""
    found = {start: Reach(start, is_declared=False)}
    facts, declared = deque([start]), deque[tuple[Node, Node]]()
    while facts or declared:
        # Facts first: what can be reached by them alone is not marked.
        while facts:
            node = facts.popleft()
            for to, is_said in edges(tx, node):
                if to in found:
                    continue
                if is_said:
                    declared.append((node, to))
                elif len(found) > most:
                    return _reached(found, start, is_whole=False)
                else:
                    found[to] = Reach(node, found[node].is_declared)
                    facts.append(to)
        if declared:
            by, to = declared.popleft()
            if to not in found:
                if len(found) > most:
                    return _reached(found, start, is_whole=False)
                found[to] = Reach(by, is_declared=True)
                facts.append(to)
    return _reached(found, start, is_whole=True)


def learned_from(tx: Tx, caller: Caller, origin: Artifact) -> Learned:
    """Return what learned from an artifact: all that its deletion with its models would delete."""
    reached = walk(tx, Node(origin.n), _below_and_with)
    members: dict[int, Learner] = {}
    unseen: list[Learner] = []
    under_way = []
    for node, reach in reached.found.items():
        if node.is_job:
            continue
        kind, artifact = artifacts.by_n(tx, node.n)
        if artifact.state is State.DELETING:
            under_way.append(node.n)
        elif artifact.state in VISIBLE:
            step = models.step_of(tx, node.n)
            one = Learner(artifact, kind, step is not None, reach.is_declared)
            if is_seen(tx, caller, kind, artifact):
                members[node.n] = one
            else:
                unseen.append(one)
    hidden = 0
    for one in unseen:
        # A checkpoint goes with its model, as ever.
        job_n = job_lineage.maker_of(tx, one.artifact.n) if one.is_checkpoint else None
        model_n = None if job_n is None else models.made_by(tx, job_n, None)
        if model_n in members:
            members[one.artifact.n] = one
        else:
            hidden += 1
    return Learned(tuple(members.values()), hidden, tuple(under_way), reached.is_whole)


def models_left(tx: Tx, numbers: Sequence[int]) -> dict[int, tuple[str, ...] | None]:
    """Return the ids of the models that learned from each of these artifacts and stay, for its deletion's receipt (I18).

    The organization reads it: checkpoints of other projects are left out. None if there is too much to look at.
    """
    # From most models nothing learned.
    origins = lineage.origins_among(tx, numbers) | job_lineage.origins_among(tx, numbers)
    return {n: _models_left(tx, n) if n in origins else () for n in numbers}


def _models_left(tx: Tx, artifact_n: int) -> tuple[str, ...] | None:
    reached = walk(tx, Node(artifact_n), below, most=RECEIPT_NODES_MAX)
    if not reached.is_whole:
        return None
    project_id = artifacts.by_n(tx, artifact_n)[1].project_id
    left = []
    for node in reached.found:
        if not node.is_job:
            kind, one = artifacts.by_n(tx, node.n)
            is_shown = one.project_id == project_id or models.step_of(tx, node.n) is None
            if kind is ArtifactKind.MODEL and one.state in VISIBLE and is_shown:
                left.append(one.id)
    return tuple(left)


def is_seen(tx: Tx, caller: Caller, kind: ArtifactKind, artifact: Artifact) -> bool:
    """Return whether the caller's project may see an artifact of its organization."""
    if artifact.organization_id != caller.organization_id:
        return False
    if kind is ArtifactKind.FILE:
        return artifact.project_id == caller.project_id
    return models.is_seen_by(tx, caller, artifact.n)


def _below_and_with(tx: Tx, node: Node) -> Iterator[Edge]:
    """Yield like `below`, and the checkpoints that are deleted with a model."""
    yield from below(tx, node)
    if not node.is_job:
        yield from ((Node(one.n), False) for one in models.checkpoints_of(tx, node.n))


def _reached(found: dict[Node, Reach], start: Node, *, is_whole: bool) -> Walk:
    return Walk({node: reach for node, reach in found.items() if node != start}, is_whole)

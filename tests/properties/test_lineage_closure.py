"""What learned from a file, over graphs of any shape: the walk along indexes finds what a plain fixed point finds."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tests.lab import budgets
from tests.lab.world import World, new_world

from tunewarden.db.database import Tx
from tunewarden.deletion import lineage
from tunewarden.deletion.lineage import Node
from tunewarden.finetuning import job_lineage, jobs
from tunewarden.identity.policy import Caller
from tunewarden.registry import artifacts
from tunewarden.registry import lineage as stored_lineage

RUNS = budgets.count(150, 3000)
FILE, MODEL = "file", "model"
OWN, OTHER = 0, 1
STEPS: list[list[int | None]] = [[], [None], [2], [None, 2], [None, 2, 4]]
STATES = ["active", "active", "active", "archived", "deleting", "deleted"]


class _RollBack(Exception):
    pass


@dataclass
class Graph:
    """Artifacts and jobs by their place in the lists; edges name places."""

    files: list[tuple[int, str]]
    jobs: list[dict[str, int | None]] = field(default_factory=list)
    # (job, step, project, state); a job has one model at most, and a checkpoint a step.
    models: list[tuple[int | None, int | None, int, str]] = field(default_factory=list)
    derived: set[tuple[int, int]] = field(default_factory=set)
    declared: set[tuple[int, int]] = field(default_factory=set)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw files, jobs on them, their models and checkpoints, later jobs, derived files and declarations."""
    project, state = st.sampled_from([OWN, OWN, OTHER]), st.sampled_from(STATES)
    files = draw(st.lists(st.tuples(project, state), min_size=1, max_size=5))
    graph = Graph([(OWN, "active"), *files[1:]])
    some_file = st.integers(0, len(graph.files) - 1)
    for job in range(draw(st.integers(0, 5))):
        models = len(graph.models)
        graph.jobs.append(
            {
                "project": draw(project),
                "training": draw(some_file),
                "validation": draw(st.none() | some_file),
                "start": draw(st.none() | st.integers(0, models - 1)) if models else None,
                "result": draw(st.none() | some_file),
                "finished": draw(st.sampled_from([0, 1])),
            }
        )
        for step in draw(st.sampled_from(STEPS)):
            graph.models.append((job, step, graph.jobs[job]["project"] or OWN, draw(state)))
    for _ in range(draw(st.integers(0, 2))):
        graph.models.append((None, None, draw(project), draw(state)))
    graph.derived = draw(st.sets(st.tuples(some_file, some_file), max_size=4))
    if graph.models:
        some_model = st.integers(0, len(graph.models) - 1)
        graph.declared = draw(st.sets(st.tuples(some_model, some_file), max_size=3))
    return graph


@contextmanager
def _rolled_back(world: World) -> Iterator[Tx]:
    with suppress(_RollBack), world.app.database.write() as tx:
        yield tx
        raise _RollBack


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


def _artifact(tx: Tx, organization: str, name: str, project: str, state: str) -> int:
    tx.run(
        "INSERT INTO artifacts (kind, id, internal_id, organization_id, project_id, state, epoch, key_id, manifest,"
        " manifest_sha256, created_by, created_at, salt)"
        " VALUES (:kind, :id, :id, :organization, :project, :state, 1, 'k', '{}', '', 'k', 0, x'00')",
        kind=FILE if name.startswith("f") else MODEL,
        id=name,
        organization=organization,
        project=project,
        state=state,
    )
    row = tx.row("SELECT n FROM artifacts WHERE id = :id", id=name)
    assert row is not None
    return int(row[0])


def _stored(tx: Tx, caller: Caller, graph: Graph) -> tuple[list[int], list[int]]:
    """Write a graph; return the numbers of its files and models."""
    organization, projects = caller.organization_id, [caller.project_id, "proj_other"]
    tx.run(
        "INSERT INTO projects (id, organization_id, name, is_default, created_at) VALUES ('proj_other', :o, 'x', 0, 0)",
        o=caller.organization_id,
    )
    files = []
    for place, (project, state) in enumerate(graph.files):
        files.append(_artifact(tx, organization, f"f{place}", projects[project], state))
        tx.run("INSERT INTO files VALUES (:n, '', 'fine-tune', 1, NULL, NULL)", n=files[-1])
    models: list[int] = []
    for place, (_, _, project, state) in enumerate(graph.models):
        models.append(_artifact(tx, organization, f"m{place}", projects[project], state))
        tx.run("INSERT INTO models (n, base, suffix) VALUES (:n, 'tiny', '')", n=models[-1])
    for place, job in enumerate(graph.jobs):
        training, validation, start, result = (
            job[name] for name in ("training", "validation", "start", "result")
        )
        assert training is not None
        tx.run(
            "INSERT INTO jobs (n, id, internal_id, organization_id, project_id, status, model, base, start_n,"
            " training_n, validation_n, result_n, method, hyperparameters, suffix, seed, created_by, created_at,"
            " finished_at) VALUES (:n, :id, :id, :organization, :project, :status, 'tiny', 'tiny', :start, :training,"
            " :validation, :result, 'supervised', '{}', '', 1, 'k', 0, :finished)",
            n=place + 1,
            id=f"j{place}",
            organization=caller.organization_id,
            project=projects[job["project"] or OWN],
            status="succeeded" if job["finished"] else "running",
            start=None if start is None else models[start],
            training=files[training],
            validation=None if validation is None else files[validation],
            result=None if result is None else files[result],
            finished=1 if job["finished"] else None,
        )
    for n, (job_n, step, _, _) in zip(models, graph.models, strict=True):
        sql = "UPDATE models SET job_n = :job, step = :step WHERE n = :n"
        tx.run(sql, job=None if job_n is None else job_n + 1, step=step, n=n)
    for made, origin in graph.derived:
        sql = "INSERT INTO derivations VALUES (:n, :origin)"
        tx.run(sql, n=files[made], origin=files[origin])
    for model, origin in graph.declared:
        sql = "INSERT INTO declared_origins VALUES (:n, :origin)"
        tx.run(sql, n=models[model], origin=files[origin])
    return files, models


Name = tuple[str, int]


def _edges(graph: Graph, *, with_declared: bool) -> set[tuple[Name, Name]]:
    """Return every edge of a graph, from what was learned from to what learned, jobs in between left out."""
    found: set[tuple[Name, Name]] = set()
    for place, job in enumerate(graph.jobs):
        made: set[Name] = {(MODEL, n) for n, (of, *_) in enumerate(graph.models) if of == place}
        results: set[Name] = set() if job["result"] is None else {(FILE, job["result"])}
        origins: set[Name] = {(FILE, job["training"] or 0)}
        if job["start"] is not None:
            origins.add((MODEL, job["start"]))
        found |= {(origin, one) for origin in origins for one in made | results}
        if job["validation"] is not None:
            found |= {((FILE, job["validation"]), one) for one in results}
    found |= {((FILE, origin), (FILE, made)) for made, origin in graph.derived}
    if with_declared:
        found |= {((FILE, origin), (MODEL, model)) for model, origin in graph.declared}
    # A model's living checkpoints go with it.
    for n, (job_n, step, _, _) in enumerate(graph.models):
        for other, (of, other_step, _, state) in enumerate(graph.models):
            is_checkpoint = None not in {job_n, other_step} and of == job_n and step is None
            if is_checkpoint and state in {"active", "archived"}:
                found.add(((MODEL, n), (MODEL, other)))
    return found


def _closure(edges: set[tuple[Name, Name]]) -> set[Name]:
    """Return what can be reached from the first file: by going round until nothing is new."""
    found: set[Name] = {(FILE, 0)}
    while True:
        more = {to for origin, to in edges if origin in found} - found
        if not more:
            return found - {(FILE, 0)}
        found |= more


def _is_seen(graph: Graph, name: Name) -> bool:
    kind, place = name
    if kind == FILE:
        return graph.files[place][0] == OWN
    _, step, project, _ = graph.models[place]
    return step is None or project == OWN


def _state(graph: Graph, name: Name) -> str:
    kind, place = name
    return graph.files[place][1] if kind == FILE else graph.models[place][3]


@settings(max_examples=RUNS, deadline=None)
@given(graph=graphs())
def test_what_learned_from_a_file_is_its_closure_and_nothing_else(
    world: World, graph: Graph
) -> None:
    caller = world.caller()
    with _rolled_back(world) as tx:
        _check(tx, caller, graph)


def _check(tx: Tx, caller: Caller, graph: Graph) -> None:
    files, models = _stored(tx, caller, graph)
    names: dict[int, Name] = {n: (FILE, place) for place, n in enumerate(files)}
    names |= {n: (MODEL, place) for place, n in enumerate(models)}
    everything = _closure(_edges(graph, with_declared=True))
    facts = _closure(_edges(graph, with_declared=False))
    living = {one for one in everything if _state(graph, one) in {"active", "archived"}}
    seen = {one for one in living if _is_seen(graph, one)}
    # A checkpoint that is hidden goes with its model.
    finals = {
        graph.models[place][0]
        for kind, place in seen
        if kind == MODEL and graph.models[place][1] is None
    }
    seen |= {
        (kind, place)
        for kind, place in living
        if kind == MODEL
        and graph.models[place][1] is not None
        and graph.models[place][0] in finals - {None}
    }
    _, origin = artifacts.by_n(tx, files[0])
    found = lineage.learned_from(tx, caller, origin)
    assert {names[one.artifact.n] for one in found.members} == seen
    assert {names[one.artifact.n] for one in found.members if one.is_declared} == seen - facts
    assert found.hidden == len(living - seen)
    assert {names[n] for n in found.under_way} == {
        one for one in everything if _state(graph, one) == "deleting"
    }
    assert found.is_whole
    _check_both_ways(tx, files + models)
    _check_groups(tx, files + models)


def _check_groups(tx: Tx, numbers: list[int]) -> None:
    """What is asked about many at once is what each is asked about: a deletion goes the short way by it."""
    origins = stored_lineage.origins_among(tx, numbers) | job_lineage.origins_among(tx, numbers)
    assert origins == {n for n in numbers if [*lineage.below(tx, Node(n))]}
    assert jobs.needed_among(tx, numbers) == {n for n in numbers if jobs.that_need(tx, n)}


def _check_both_ways(tx: Tx, numbers: list[int]) -> None:
    """What is below one has it above: the two directions tell one story."""
    for n in numbers:
        for node, _ in lineage.below(tx, Node(n)):
            above = {one for one, _ in lineage.above(tx, node)}
            assert Node(n) in above


def test_a_walk_stops_where_it_is_told_to_and_says_so(world: World) -> None:
    graph = Graph([(OWN, "active")] * 5, derived={(n + 1, n) for n in range(4)})
    caller = world.caller()
    with _rolled_back(world) as tx:
        files, _ = _stored(tx, caller, graph)
        assert lineage.walk(tx, Node(files[0]), lineage.below, most=9).is_whole
        some = lineage.walk(tx, Node(files[0]), lineage.below, most=2)
        assert (len(some.found), some.is_whole) == (2, False)

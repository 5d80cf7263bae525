"""Files, and models with checkpoints, are deleted by the same protocol: crashes at every effect."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.lab.judge import judge, judge_nothing_else
from tests.lab.power import Power
from tests.lab.world import Made, World, copied, new_world, one_dies

from tunewarden.deletion import plan, records
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden_receipts.leaf import DeletionLeaf
from tunewarden_receipts.receipt import verify

CANARY = b'{"messages": "tunewarden-training-data-canary"}\n'


@dataclass
class Start:
    """A closed installation: a training file, and the model and two checkpoints that came of it."""

    world: World
    owner: Caller
    file: Made
    model: Made
    checkpoints: list[Made]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with new_world() as world:
        owner = world.caller()
        file = world.make_file(owner, CANARY * 1000)
        model, *checkpoints = [world.make(owner, f"canary-{number}") for number in range(3)]
        with world.app.database.write() as tx:
            tx.run(
                "INSERT INTO jobs (n, id, internal_id, organization_id, project_id, status, model, base,"
                " training_n, method, hyperparameters, suffix, seed, created_by, created_at, finished_at)"
                " VALUES (1, 'ftjob-1', 'm_job', :organization, :project, 'succeeded', 'tiny', 'tiny',"
                " :file, 'supervised', '{}', '', 1, 'k', 0, 1)",
                organization=owner.organization_id,
                project=owner.project_id,
                file=file.model.n,
            )
            for step, made in enumerate([model, *checkpoints]):
                tx.run(
                    "UPDATE models SET job_n = 1, step = :step WHERE n = :n",
                    n=made.model.n,
                    step=step or None,
                )
        world.close()
        gc.collect()
        yield Start(world, owner, file, model, checkpoints)


def _deleted_at(start: Start, made: Made, cut_at: int | None) -> tuple[list[State], int]:
    """Delete with the power cut at an effect, start again; return all states and the effects there were."""
    with copied(start.world, power=Power(cut_at)) as world:
        with one_dies():
            world.open()
            world.delete(start.owner, made)
            world.resume()
        effects = len(world.power.effects)
        acknowledged = made.model.id in world.acknowledged
        world.restart()
        everything = [start.file, start.model, *start.checkpoints]
        states = [judge(world, one) for one in everything]
        judge_nothing_else(world)
        if acknowledged:
            assert states[everything.index(made)] is State.DELETED
        return states, effects


@pytest.mark.long
def test_a_model_takes_its_checkpoints_with_it_whole_or_not_at_all(start: Start) -> None:
    gone = [State.ACTIVE, State.DELETED, State.DELETED, State.DELETED]
    states, effects = _deleted_at(start, start.model, None)
    assert states == gone, "the file stays"
    outcomes = set()
    for cut_at in range(effects):
        states, _ = _deleted_at(start, start.model, cut_at)
        assert states in (gone, [State.ACTIVE] * 4), cut_at
        outcomes.add(tuple(states))
    assert len(outcomes) == 2, "cuts before the commit point and after it were among them"
    print(f"{effects} cuts of a deletion with two checkpoints")


def test_a_file_is_deleted_by_the_same_steps_whatever_is_cut(start: Start) -> None:
    gone = [State.DELETED, *[State.ACTIVE] * 3]
    states, effects = _deleted_at(start, start.file, None)
    assert states == gone
    for cut_at in range(effects):
        states, _ = _deleted_at(start, start.file, cut_at)
        assert states in (gone, [State.ACTIVE] * 4), cut_at
    print(f"{effects} cuts of a file's deletion")


def test_a_files_receipt_says_that_a_file_was_deleted_and_not_its_name(start: Start) -> None:
    with copied(start.world) as world:
        deletion = world.open().delete(start.owner, start.file)
        _, signer = world.app.open_log()
        assert deletion.receipt is not None
        proven = verify(deletion.receipt, signer.public_pem())
        assert isinstance(proven.facts, DeletionLeaf)
        assert proven.disclosed is not None
        named = (proven.facts.kind, proven.disclosed.artifact_id)
        assert named == ("file", start.file.model.id)
        assert proven.disclosed.engines == (), "no engine holds files"
        assert b"f.jsonl" not in deletion.receipt
        with world.app.database.read() as tx:
            assert tx.rows("SELECT filename FROM files") == [("",)]


def test_each_checkpoint_has_a_deletion_and_a_receipt_of_its_own(start: Start) -> None:
    with copied(start.world) as world:
        deletion = world.open().delete(start.owner, start.model)
        parts = records.parts_of(world.app.database, deletion)
        assert [part.artifact_id for part in parts] == [one.model.id for one in start.checkpoints]
        assert all(part.is_deleted and part.receipt for part in parts)
        assert all(part.parent == deletion.id for part in parts)


def test_a_checkpoint_can_be_deleted_alone(start: Start) -> None:
    states, _ = _deleted_at(start, start.checkpoints[0], None)
    assert states == [State.ACTIVE, State.ACTIVE, State.DELETED, State.ACTIVE]


def test_the_plan_names_checkpoints_and_bytes(start: Start) -> None:
    with copied(start.world) as world:
        world.open()
        found = plan.plan(world.app.database, start.owner, ArtifactKind.MODEL, start.model.model.id)
        assert [one.id for one in found.checkpoints] == [one.model.id for one in start.checkpoints]
        assert (found.blobs, found.blockers) == (6, ())
        assert found.sealed_bytes > 6 * 200


def test_an_unfinished_job_forbids_the_deletion_of_what_it_needs(start: Start) -> None:
    with copied(start.world) as world:
        world.open()
        with world.app.database.write() as tx:
            tx.run("UPDATE jobs SET finished_at = NULL, start_n = :n", n=start.model.model.n)
        for made in (start.file, start.model, *start.checkpoints):
            with pytest.raises(Error, match="ftjob-1") as refused:
                world.delete(start.owner, made)
            assert refused.value.kind is Kind.CONFLICT
        assert judge(world, start.file) is State.ACTIVE
        found = plan.plan(world.app.database, start.owner, ArtifactKind.MODEL, start.model.model.id)
        assert {one.id for one in found.blockers} == {"ftjob-1"}

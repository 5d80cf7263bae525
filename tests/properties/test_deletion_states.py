"""The tables in `deletion/protocol.py`, held against what deletions do, with crashes at every effect and restored rows."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.lab.power import Power
from tests.lab.world import Made, Parts, World, copied, new_world, one_dies
from tests.support.state_tables import Transition, transitions

from tunewarden.db.database import Tx
from tunewarden.deletion import protocol, records, replay
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.group_commit import GroupCommit
from tunewarden.deletion.protocol import NEXT, STAGES, TRANSITIONS, Stage, Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.steps import Steps
from tunewarden.identity.policy import Caller
from tunewarden.registry.artifacts import State
from tunewarden_receipts.leaf import Disclosure
from tunewarden_receipts.statement import Deleted

CRASH = "a crash"
FOUND = "its leaf is found (D10)"
TABLE = transitions(protocol, Stage)
DATABASES = "tunewarden.sqlite*"
Start = tuple[World, Caller, Made]


class _Watched(Steps):
    seen: list[tuple[Stage, Step, Stage]] = []  # noqa: RUF012 - of all worlds of a test, emptied before each

    def do(self, step: Step, deletions: Sequence[Deletion]) -> list[Deletion]:
        done = super().do(step, deletions)
        self.seen.extend(
            (one.stage, step, then.stage) for one, then in zip(deletions, done, strict=True)
        )
        return done


class Watched(Parts):
    steps_type = _Watched


class _AsFollower(GroupCommit):
    """Notes D4 and D5 as a deletion that waits for a leader does."""

    def lead_or_follow(self, deletion: Deletion, deadline: float) -> Deletion:
        if deletion.stage is Stage.EVICTED:
            self._runner.steps.note(deletion)
        return super().lead_or_follow(deletion, deadline)


class _Following(Executor):
    group_commit_type = _AsFollower


class Following(Watched):
    executor_type = _Following


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with new_world() as world:
        owner = world.caller()
        made = world.make(owner)
        world.close()
        yield world, owner, made


def _delete(world: World, start: Start) -> None:
    _Watched.seen.clear()
    with one_dies():
        world.open()
        world.delete(start[1], start[2])
        world.resume()
    world.close()


def test_each_step_leads_to_the_state_that_the_table_says(start: Start) -> None:
    with copied(start[0], parts=Watched()) as world:
        _delete(world, start)
    seen = {
        (before.name, f"{step.name} ({step})", after.name) for before, step, after in _Watched.seen
    }
    assert seen == {found for found in TABLE if found[1] not in {CRASH, FOUND}}
    assert {stage: step for stage, step, _ in _Watched.seen} == NEXT


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> set[Transition]:
    """What the replay of the log (D10) did to deletions that the database knew of."""
    seen: set[Transition] = set()
    product = replay.deletion

    def watched(
        tx: Tx, facts: Deleted, index: int, bundle: Callable[[Disclosure | None], bytes]
    ) -> int:
        before = _noted(tx, facts)
        replayed = product(tx, facts, index, bundle)
        after = _noted(tx, facts)
        if before is not None and after is not None and before.deleted_at is None:
            seen.add((before.stage.name, FOUND, after.stage.name))
        return replayed

    monkeypatch.setattr(replay, "deletion", watched)
    return seen


def _noted(tx: Tx, facts: Deleted) -> Deletion | None:
    row = tx.row("SELECT artifact_n FROM deletions WHERE id = :id", id=facts.deletion_id)
    return None if row is None else records.find_of(tx, int(row[0]))


@pytest.mark.long
def test_crashes_and_the_replay_of_the_log_lead_where_the_table_says(
    start: Start, found: set[Transition], tmp_path: Path
) -> None:
    """Alone, a deletion notes D4 to D6 together; one that waits for others has noted D4 and D5."""
    crashed: set[Transition] = set()
    for parts in (Watched(), Following()):
        crashed |= _crashed(start, parts, tmp_path / type(parts).__name__)
    assert crashed | found == {entry for entry in TABLE if entry[1] in {CRASH, FOUND}}


def _crashed(start: Start, parts: Parts, kept: Path) -> set[Transition]:
    """Return what crashes at every effect do to the row, and at every effect of a start on each restored row."""
    crashed: set[Transition] = set()
    rows: set[Stage] = set()
    for first in range(200):
        with copied(start[0], parts=parts, power=Power(first)) as world:
            _delete(world, start)
            was_cut = world.power.dead
            row = _stored_stage(world)
            if row is not None:
                # A step that was committed and did not return was done.
                before = max(_reached(), row, key=STAGES.index)
                crashed.add((before.name, CRASH, row.name))
                if row not in {*rows, Stage.DELETED, Stage.ERASED}:
                    crashed |= _cut_while_replaying(world, kept / row.name)
                    rows.add(row)
        if not was_cut:
            break
    return crashed


def _reached() -> Stage:
    return _Watched.seen[-1][2] if _Watched.seen else Stage.COMMITTED


def _stored_stage(world: World) -> Stage | None:
    """Return the state in the row of the only deletion of a closed world."""
    world.power = Power()
    database = world.open().app.database
    row = database.peek("SELECT id FROM deletions")
    found = None if row is None else records.find(database, str(row[0]))
    world.close()
    return None if found is None else found.stage


def _cut_while_replaying(world: World, kept: Path) -> set[Transition]:
    """Let the deletion end, restore its row as it is now, and start, cut at each effect; return what cuts did to a
    deletion that was found in the log.
    """
    kept.mkdir(parents=True)
    for path in world.config.data.glob(DATABASES):
        shutil.copy(path, kept)
    world.restart()
    world.close()
    seen: set[Transition] = set()
    for first in range(200):
        for path in world.config.data.glob(DATABASES):
            path.unlink()
        for path in kept.iterdir():
            shutil.copy(path, world.config.data)
        world.power = power = Power(first)
        with one_dies():
            world.open()
            world.parts.recover(world.app)
        world.close()
        if _stored_stage(world) is Stage.LOGGED:
            seen.add((Stage.LOGGED.name, CRASH, Stage.LOGGED.name))
        world.restart()
        world.close()
        if not power.dead:
            break
    return seen


def test_an_artifact_changes_its_state_only_as_the_table_says() -> None:
    allowed = {(before.name, after.name) for before, after in TRANSITIONS}
    assert {(before, after) for before, _, after in transitions(protocol, State)} == allowed
    for before in State:
        for after in State:
            if (before.name, after.name) in allowed:
                protocol.check_transition(before, after)
            else:
                with pytest.raises(RuntimeError):
                    protocol.check_transition(before, after)
